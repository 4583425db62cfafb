//go:build !bridge

package main

import "errors"

// bridge is not part of launchers for packages with Python: TLS would double their size.
func bridge(remote) (network, address string, cleanup func(), err error) {
	return "", "", nil, errors.New("this package does not support TLS; make one with --address")
}
