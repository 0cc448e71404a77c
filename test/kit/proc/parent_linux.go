package proc

import "syscall"

// endsWithParent makes the system kill a program when the thread that started it ends: a test binary that is killed, or panics
// at its timeout, runs no cleanup.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// withoutFork does something while no process starts. On Linux, opening a socket takes no part in ForkLock itself.
func withoutFork(do func()) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	do()
}
