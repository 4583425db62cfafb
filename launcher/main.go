// The executable that Grafana starts: gpx_<name>_<os>_<arch>. It is static, so it runs with any libc.
//
// It replaces itself with the Python that serves the plugin, by launch.conf in its folder. It must not
// stay as a process between them: Grafana kills the process that it started and waits for the end of
// its output. For a remote plugin it prints the address and waits.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

const (
	cookieName  = "grafana_plugin_type"
	cookieValue = "datasource"
	notStarted  = 127 // exit status: the plugin cannot be started
)

func main() {
	executable, err := os.Executable()
	if err != nil { // without /proc; Grafana uses the full path
		executable = os.Args[0]
	}
	if real, err := filepath.EvalSymlinks(executable); err == nil {
		executable = real
	}
	here := filepath.Dir(executable)
	conf, err := readConf(filepath.Join(here, "launch.conf"))
	if err != nil {
		fail("the package is incomplete: %v; unpack it again", err)
	}
	if len(os.Args) > 1 && os.Args[1] == installed {
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "install" {
		if err := conf.install(here, os.Args[2:], executable); err != nil {
			fmt.Fprintf(os.Stderr, "%s install: %v\n", filepath.Base(executable), err)
			os.Exit(1)
		}
		return
	}
	// arguments are a command line (`… doctor`), for this machine
	if len(os.Args) == 1 {
		if remote := conf.remote(here); remote.address != "" {
			if os.Getenv(cookieName) != cookieValue {
				fmt.Fprintln(os.Stderr, "This program is a Grafana data source plugin: Grafana starts it. "+
					"Its Python runs elsewhere, at "+remote.address+".")
				os.Exit(1)
			}
			remote.announce()
		}
	}
	command, err := conf.python(here)
	if err != nil {
		fail("%v", err)
	}
	err = become(command.program, append(command.arguments, os.Args[1:]...), command.environ)
	fail("%s cannot be run on %s/%s: %v", command.program, runtime.GOOS, runtime.GOARCH, err)
}

// fail logs why the plugin cannot be started, and exits.
func fail(format string, values ...any) {
	logLine("error", format, values...)
	os.Exit(notStarted)
}

// logLine writes a log line in go-plugin's format.
func logLine(level, format string, values ...any) {
	line, _ := json.Marshal(map[string]string{
		"@level": level, "@message": fmt.Sprintf(format, values...), "@module": "launcher",
	})
	fmt.Fprintln(os.Stderr, string(line))
}
