//go:build bridge

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

const dialTimeout = 5 * time.Second

// bridge listens here, and carries each of the host's connections to the plugin over TLS: the host
// itself speaks to a plugin without. It returns where it listens, and what removes that.
func bridge(r remote) (network, address string, end func(), err error) {
	config, err := r.config()
	if err != nil {
		return "", "", nil, err
	}
	listener, end, err := listen()
	if err != nil {
		return "", "", nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				fail("no more connections of the host can be taken: %v", err)
			}
			go carry(connection, r.address, config)
		}
	}()
	return listener.Addr().Network(), listener.Addr().String(), end, nil
}

func (r remote) config() (*tls.Config, error) {
	config := &tls.Config{NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12, ServerName: r.name}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(r.address)
	}
	if r.ca != "" {
		text, err := os.ReadFile(r.ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", r.ca)
		}
	}
	if (r.cert == "") != (r.key == "") {
		return nil, fmt.Errorf("tls_cert and tls_key go together; one of them is not set")
	}
	if r.cert != "" {
		pair, err := tls.LoadX509KeyPair(r.cert, r.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func listen() (net.Listener, func(), error) {
	if runtime.GOOS == "windows" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		return listener, func() {}, err
	}
	folder, err := os.MkdirTemp(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin")
	if err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("unix", filepath.Join(folder, "socket"))
	return listener, func() { os.RemoveAll(folder) }, err
}

// carry copies both ways until either side ends; the host connects again by itself.
func carry(host net.Conn, address string, config *tls.Config) {
	defer host.Close()
	dialer := &net.Dialer{Timeout: dialTimeout}
	plugin, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		say("error", "the plugin at %s cannot be reached: %v", address, err)
		return
	}
	defer plugin.Close()
	type end struct {
		ofPlugin bool
		err      error
	}
	ends := make(chan end, 2)
	go func() {
		_, err := io.Copy(plugin, host)
		ends <- end{false, err}
	}()
	go func() {
		_, err := io.Copy(host, plugin)
		ends <- end{true, err}
	}()
	if first := <-ends; first.ofPlugin {
		reason := first.err
		if reason == nil {
			reason = io.EOF
		}
		say("warn", "the plugin at %s ended the connection: %v", address, reason)
	}
}
