package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	poll      = 500 * time.Millisecond // interval of checks whether the host runs
	keepAlive = 10 * time.Second       // interval of writes, which fail after the host's end
)

// remote is a plugin process that runs independently of Grafana.
type remote struct {
	address string // HOST:PORT, or the path of a UNIX socket
	tls     bool
	ca      string // a file; "" for the system's CAs
	cert    string // the files of the client certificate and its key, or ""
	key     string
	name    string // the name in the server's certificate; "" for the host of the address
}

// remote returns the address of a remote plugin: from the Go SDK's variable or files, which debuggers
// use, from grafana.ini, or from the package.
func (c conf) remote(here string) remote {
	variable := "GF_PLUGIN_GRPC_ADDRESS_" + strings.ReplaceAll(strings.ToUpper(c["id"]), "-", "_")
	if address := os.Getenv(variable); address != "" {
		return remote{address: address}
	}
	if address := standalone(here); address != "" {
		return remote{address: address}
	}
	first := func(values ...string) string {
		for _, value := range values {
			if value != "" {
				return value
			}
		}
		return ""
	}
	ca := setting("tls_ca")
	if ca == "" && c["ca"] != "" {
		ca = filepath.Join(here, c["ca"])
	}
	useTLS := first(setting("tls"), c["tls"])
	return remote{
		address: first(setting("address"), c["address"]),
		tls:     useTLS == "true" || (useTLS == "" && ca != ""),
		ca:      ca,
		cert:    setting("tls_cert"),
		key:     setting("tls_key"),
		name:    setting("tls_server_name"),
	}
}

// standalone is the address in standalone.txt, unless the process in pid.txt has ended.
func standalone(here string) string {
	text, err := os.ReadFile(filepath.Join(here, "standalone.txt"))
	if err != nil {
		return ""
	}
	if number, err := os.ReadFile(filepath.Join(here, "pid.txt")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(number))); err == nil && !isAlive(pid) {
			return ""
		}
	}
	return strings.TrimSpace(string(text))
}

// cutLast splits HOST:PORT at the last colon; IPv6 addresses have colons.
func cutLast(address string) (host, port string, found bool) {
	at := strings.LastIndex(address, ":")
	if at < 1 {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// announce prints the plugin's address for the host, and waits until the host ends.
func (r remote) announce() {
	parent := os.Getppid()
	signal.Ignore(os.Interrupt) // Ctrl-C in a terminal also reaches the host, which stops its plugins
	_, port, _ := cutLast(r.address)
	isSocket := filepath.IsAbs(r.address) // of a process on this machine
	if number, err := strconv.Atoi(port); !isSocket && (err != nil || number < 1 || number > 65535) {
		fail("address must be HOST:PORT, got %q", r.address)
	}
	network, address, cleanup := "tcp", r.address, func() {}
	if isSocket {
		network = "unix"
	} else if r.tls {
		var err error
		if network, address, cleanup, err = bridge(r); err != nil {
			fail("TLS to %s cannot be configured: %v", r.address, err)
		}
	} else {
		logLine("info", "the plugin runs at %s; the connection is not encrypted, including secrets", r.address)
	}
	fmt.Printf("1|2|%s|%s|grpc\n", network, address)
	go endWithHost()
	for last := time.Now(); os.Getppid() == parent; time.Sleep(poll) {
		if time.Since(last) >= keepAlive {
			last = time.Now()
			fmt.Fprintln(os.Stderr, "the plugin runs remotely")
		}
	}
	cleanup()
	os.Exit(0)
}
