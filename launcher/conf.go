package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// conf is launch.conf: lines "name = value", with paths relative to the plugin's folder.
type conf map[string]string

func readConf(path string) (conf, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := conf{}
	for number, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, equals := strings.Cut(line, "=")
		if !equals {
			return nil, fmt.Errorf("launch.conf:%d: expected name = value, got %q", number+1, line)
		}
		found[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return found, nil
}

// setting is a key of the section [plugin.<id>] of grafana.ini, which Grafana passes as a variable.
func setting(key string) string {
	return strings.TrimSpace(os.Getenv("GF_PLUGIN_" + strings.ToUpper(key)))
}

// command is the program to run.
type command struct {
	program   string
	arguments []string // the program's name first
	environ   []string
}

// isolated makes Python ignore the machine's settings, user packages and locale, and write no .pyc: a
// new file makes a signed plugin invalid.
var isolated = []string{"-I", "-S", "-B", "-X", "utf8"}

func (c conf) python(here string) (*command, error) {
	start := filepath.Join(here, "start.py")
	if path := setting("python"); path != "" {
		return hostPython(path, start), nil
	}
	switch c["runtime"] {
	case "bundled":
		return c.bundled(here, start)
	case "host":
		return findPython(start)
	case "address":
		return nil, fmt.Errorf("the package has no Python and no address: set address = HOST:PORT " +
			"under [plugin." + c["id"] + "] in grafana.ini")
	}
	return nil, fmt.Errorf("launch.conf: runtime must be bundled, host or address, got %q", c["runtime"])
}

func (c conf) bundled(here, start string) (*command, error) {
	if machine := runtime.GOOS + "/" + runtime.GOARCH; c["platform"] != machine {
		return nil, fmt.Errorf("the package has a Python for %s, this machine is %s: package the plugin "+
			"on a machine of the same platform, or with --runtime host or --address", c["platform"], machine)
	}
	loader, interpreter := filepath.Join(here, c["loader"]), filepath.Join(here, c["interpreter"])
	var libraries []string
	for _, path := range strings.Split(c["libraries"], ":") {
		libraries = append(libraries, filepath.Join(here, path))
	}
	arguments := append([]string{loader}, strings.Fields(c["loader_flags"])...)
	arguments = append(arguments, "--library-path", strings.Join(libraries, ":"), interpreter)
	arguments = append(append(arguments, isolated...), start)
	return &command{loader, arguments, bundledEnviron()}, nil
}

// certificates lists where systems have their trusted CAs; the packaged OpenSSL knows only the path of
// the system that it was built for.
var certificates = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

func bundledEnviron() []string {
	var environ []string
	for _, pair := range os.Environ() {
		// these are for the machine's libc, not the packaged one
		if !strings.HasPrefix(pair, "LD_PRELOAD=") && !strings.HasPrefix(pair, "LD_LIBRARY_PATH=") {
			environ = append(environ, pair)
		}
	}
	if os.Getenv("SSL_CERT_FILE") == "" {
		for _, path := range certificates {
			if _, err := os.Stat(path); err == nil {
				return append(environ, "SSL_CERT_FILE="+path)
			}
		}
	}
	return environ
}

// findPython searches PATH and the common folders: newer versions of Grafana pass no PATH.
func findPython(start string) (*command, error) {
	folders := filepath.SplitList(os.Getenv("PATH"))
	folders = append(folders, "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", "/opt/local/bin")
	for _, folder := range folders {
		for _, name := range pythonNames {
			path := filepath.Join(folder, name)
			if info, err := os.Stat(path); err == nil && !info.IsDir() && filepath.IsAbs(path) {
				return hostPython(path, start), nil
			}
		}
	}
	return nil, fmt.Errorf("this machine has no Python in %s: set python = /path/to/python under "+
		"[plugin.<id>] in grafana.ini, or package the plugin with --runtime bundled", strings.Join(folders, ", "))
}

func hostPython(path, start string) *command {
	// without -S, unlike the bundled Python: this Python's packages are needed
	return &command{path, []string{path, "-I", "-B", "-X", "utf8", start}, os.Environ()}
}
