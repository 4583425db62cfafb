//go:build !windows

package main

import "syscall"

var pythonNames = []string{"python3", "python3.14", "python3.13", "python3.12", "python3.11"}

// become replaces this process with the program; it returns only if that fails.
func become(program string, arguments, environ []string) error {
	return syscall.Exec(program, arguments, environ)
}

// endWithHost does nothing: the number of the parent process changes when the host has ended.
func endWithHost() {}

func isAlive(pid int) bool {
	return syscall.Kill(pid, 0) != syscall.ESRCH
}
