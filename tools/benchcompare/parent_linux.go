package main

import "syscall"

// endWithParent makes the system kill a process when the thread that started it ends, so also when this tool itself is killed.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
