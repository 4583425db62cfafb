// The executable that Grafana starts: gpx_<name>_<os>_<arch>, static, so that it runs on any libc.
//
// It becomes the Python that serves the plugin: never a process between Grafana and Python, because
// Grafana kills the process that it started and waits for the end of its output. Which Python, says
// launch.conf beside it. Where the plugin runs elsewhere, it only says where, and idles.
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
	notStarted  = 127 // exit status: there is nothing to run
)

func main() {
	executable, err := os.Executable()
	if err != nil { // there is no /proc; Grafana starts us by our whole path
		executable = os.Args[0]
	}
	if real, err := filepath.EvalSymlinks(executable); err == nil {
		executable = real
	}
	here := filepath.Dir(executable)
	conf, err := readConf(filepath.Join(here, "launch.conf"))
	if err != nil {
		fail("the package is not whole: %v; unpack it again", err)
	}
	// with arguments it is a command line (`… doctor`), which is about this machine
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

// fail says why nothing can be started, as a log line that Grafana shows, and ends.
func fail(format string, values ...any) {
	say("error", format, values...)
	os.Exit(notStarted)
}

// say writes one log line in go-plugin's form.
func say(level, format string, values ...any) {
	line, _ := json.Marshal(map[string]string{
		"@level": level, "@message": fmt.Sprintf(format, values...), "@module": "launcher",
	})
	fmt.Fprintln(os.Stderr, string(line))
}
