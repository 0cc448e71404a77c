//go:build !linux

package proc

import "syscall"

// endsWithParent does nothing: only Linux can end a program with its parent.
func endsWithParent() *syscall.SysProcAttr { return nil }

// withoutFork does something.
func withoutFork(do func()) { do() }
