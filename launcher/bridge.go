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

// bridge listens on a local socket and forwards each connection of the host to the plugin over TLS,
// because the host connects to plugins without TLS. It returns the socket's address and a function
// that removes it.
func bridge(r remote) (network, address string, cleanup func(), err error) {
	config, err := r.config()
	if err != nil {
		return "", "", nil, err
	}
	listener, cleanup, err := listen()
	if err != nil {
		return "", "", nil, err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				fail("connections of the host cannot be accepted: %v", err)
			}
			go forward(connection, r.address, config)
		}
	}()
	return listener.Addr().Network(), listener.Addr().String(), cleanup, nil
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
			return nil, fmt.Errorf("expected certificates in PEM, got %s", r.ca)
		}
	}
	if (r.cert == "") != (r.key == "") {
		return nil, fmt.Errorf("tls_cert and tls_key must be set together, got cert %q and key %q", r.cert, r.key)
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

// forward copies in both directions until one side closes; the host reconnects by itself.
func forward(host net.Conn, address string, config *tls.Config) {
	defer host.Close()
	dialer := &net.Dialer{Timeout: dialTimeout}
	plugin, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		logLine("error", "the plugin at %s cannot be reached: %v", address, err)
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
		logLine("warn", "the plugin at %s ended the connection: %v", address, reason)
	}
}
