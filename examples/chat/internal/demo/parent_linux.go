package demo

import "syscall"

// endWithParent makes the system kill a process when the thread that started it ends, so also when the demo itself is killed.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
