package main

import (
	"os"
	"os/exec"
	"syscall"
	"unsafe"
)

var pythonNames = []string{"python.exe", "python3.exe"}

// become runs the program and exits with its status: Windows cannot replace a process. The program ends
// with this process, which the host kills, and this process with the host, which may crash. Untested.
func become(program string, arguments, environ []string) error {
	endChildrenWithThisProcess()
	go endWithHost()
	child := exec.Command(program, arguments[1:]...)
	child.Env, child.Stdin, child.Stdout, child.Stderr = environ, os.Stdin, os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		return err
	}
	child.Wait()
	os.Exit(child.ProcessState.ExitCode())
	return nil
}

const (
	extendedLimitInformation = 9      // JobObjectExtendedLimitInformation
	killOnJobClose           = 0x2000 // JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
)

// jobLimits is JOBOBJECT_EXTENDED_LIMIT_INFORMATION.
type jobLimits struct {
	processTime, jobTime        int64
	flags                       uint32
	leastMemory, mostMemory     uintptr
	processes                   uint32
	affinity                    uintptr
	priority, scheduling        uint32
	io                          [6]uint64
	processMemory, jobMemory    uintptr
	processMemoryPeak, jobsPeak uintptr
}

// endChildrenWithThisProcess puts this process into a job, as are those that it starts. Windows ends all
// processes of the job when its only handle is closed: with this process, however that ends.
func endChildrenWithThisProcess() {
	kernel := syscall.NewLazyDLL("kernel32.dll")
	job, _, _ := kernel.NewProc("CreateJobObjectW").Call(0, 0)
	self, err := syscall.GetCurrentProcess()
	if job == 0 || err != nil {
		return
	}
	limits := jobLimits{flags: killOnJobClose}
	kernel.NewProc("SetInformationJobObject").Call(job, extendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), unsafe.Sizeof(limits))
	kernel.NewProc("AssignProcessToJobObject").Call(job, uintptr(self))
}

// endWithHost exits when the process that has started this one has ended.
func endWithHost() {
	if host, err := os.FindProcess(os.Getppid()); err == nil {
		host.Wait()
		os.Exit(1)
	}
}

func isAlive(pid int) bool {
	process, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	process.Release()
	return true
}
