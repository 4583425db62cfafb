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
	poll      = 500 * time.Millisecond // between two looks at the host
	keepAlive = 10 * time.Second       // between two lines that show that this process lives
)

// remote is a plugin process that somebody else started.
type remote struct {
	address string // HOST:PORT
	tls     bool
	ca      string // a file; "" for the system's authorities
	cert    string // the files by which we show who we are, or ""
	key     string
	name    string // the name in the server's certificate; "" for the address' host
}

// remote is where the plugin runs, if it runs elsewhere: by the Go SDK's variable or files, which a
// debugger uses, by grafana.ini, or by the package.
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
	wanted := first(setting("tls"), c["tls"])
	return remote{
		address: first(setting("address"), c["address"]),
		tls:     wanted == "true" || (wanted == "" && ca != ""),
		ca:      ca,
		cert:    setting("tls_cert"),
		key:     setting("tls_key"),
		name:    setting("tls_server_name"),
	}
}

// standalone is the address in standalone.txt, unless the process of pid.txt is gone.
func standalone(here string) string {
	text, err := os.ReadFile(filepath.Join(here, "standalone.txt"))
	if err != nil {
		return ""
	}
	if number, err := os.ReadFile(filepath.Join(here, "pid.txt")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(number))); err == nil && !lives(pid) {
			return ""
		}
	}
	return strings.TrimSpace(string(text))
}

// cutLast splits HOST:PORT; a host of IPv6 has colons itself.
func cutLast(address string) (host, port string, found bool) {
	at := strings.LastIndex(address, ":")
	if at < 1 {
		return address, "", false
	}
	return address[:at], address[at+1:], true
}

// announce tells the host where the plugin is, and stays until the host ends.
func (r remote) announce() {
	parent := os.Getppid()
	signal.Ignore(os.Interrupt) // Ctrl-C in a terminal reaches the group; the host decides
	_, port, _ := cutLast(r.address)
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		fail("the address %q is not HOST:PORT", r.address)
	}
	network, address, end := "tcp", r.address, func() {}
	if r.tls {
		var err error
		if network, address, end, err = bridge(r); err != nil {
			fail("no TLS connection to %s can be offered: %v", r.address, err)
		}
	} else {
		say("info", "the plugin runs at %s; what is said there, secrets too, is not encrypted", r.address)
	}
	fmt.Printf("1|2|%s|%s|grpc\n", network, address)
	for last := time.Now(); os.Getppid() == parent; time.Sleep(poll) {
		if time.Since(last) >= keepAlive {
			last = time.Now()
			fmt.Fprintln(os.Stderr, "the plugin runs elsewhere")
		}
	}
	end()
	os.Exit(0)
}
