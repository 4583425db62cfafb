package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// conf is launch.conf: lines "name = value", paths relative to the plugin's folder.
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
			return nil, fmt.Errorf("launch.conf:%d: %q is not name = value", number+1, line)
		}
		found[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return found, nil
}

// setting is a key of the section [plugin.<id>] of grafana.ini, which comes as a variable.
func setting(key string) string {
	return strings.TrimSpace(os.Getenv("GF_PLUGIN_" + strings.ToUpper(key)))
}

// command is what to become.
type command struct {
	program   string
	arguments []string // the program's name first
	environ   []string
}

// isolated keeps the machine's Python settings, user packages and locale out, and writes no .pyc:
// one more file beside a signed plugin makes it invalid.
var isolated = []string{"-I", "-S", "-B", "-X", "utf8"}

func (c conf) python(here string) (*command, error) {
	start := filepath.Join(here, "start.py")
	if named := setting("python"); named != "" {
		return hostPython(named, start), nil
	}
	switch c["runtime"] {
	case "bundled":
		return c.bundled(here, start)
	case "host":
		return findPython(start)
	case "address":
		return nil, fmt.Errorf("the package holds no Python and no address: set address = HOST:PORT " +
			"under [plugin." + c["id"] + "] in grafana.ini")
	}
	return nil, fmt.Errorf("launch.conf: runtime is %q; allowed are bundled, host and address", c["runtime"])
}

func (c conf) bundled(here, start string) (*command, error) {
	if machine := runtime.GOOS + "/" + runtime.GOARCH; c["platform"] != machine {
		return nil, fmt.Errorf("the package holds a Python for %s, this machine is %s: package the plugin "+
			"on such a machine, or with --runtime host or --address", c["platform"], machine)
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

// certificates is where systems keep the authorities that they trust; the OpenSSL inside looks only
// where it was built for.
var certificates = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

func bundledEnviron() []string {
	var environ []string
	for _, pair := range os.Environ() {
		// made for the machine's libc, not for ours
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

// findPython looks where Pythons are: newer Grafanas pass no PATH.
func findPython(start string) (*command, error) {
	var places []string
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		places = append(places, folder)
	}
	places = append(places, "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", "/opt/local/bin")
	for _, folder := range places {
		for _, name := range pythonNames {
			path := filepath.Join(folder, name)
			if info, err := os.Stat(path); err == nil && !info.IsDir() && filepath.IsAbs(path) {
				return hostPython(path, start), nil
			}
		}
	}
	return nil, fmt.Errorf("this machine has no Python in %s: set python = /path/to/python under "+
		"[plugin.<id>] in grafana.ini, or package the plugin with its runtime", strings.Join(places, ", "))
}

func hostPython(path, start string) *command {
	// with site, unlike the bundled one: this Python's packages are wanted
	return &command{path, []string{path, "-I", "-B", "-X", "utf8", start}, os.Environ()}
}
