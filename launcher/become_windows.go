package main

import (
	"os"
	"os/exec"
)

var pythonNames = []string{"python.exe", "python3.exe"}

// become runs the program and exits with its status: Windows cannot replace a process. Untested.
func become(program string, arguments, environ []string) error {
	child := exec.Command(program, arguments[1:]...)
	child.Env, child.Stdin, child.Stdout, child.Stderr = environ, os.Stdin, os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	child.Wait()
	os.Exit(child.ProcessState.ExitCode())
	return nil
}

func isAlive(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	process.Release()
	return true
}
