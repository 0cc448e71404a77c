package proc

import "syscall"

// endsWithParent makes the system kill a program when the thread that started it ends: a test binary that is killed, or panics
// at its timeout, runs no cleanup.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
