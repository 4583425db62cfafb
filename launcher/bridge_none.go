//go:build !bridge

package main

import "errors"

// bridge is left out of the launcher of a package that holds its own Python: TLS would double it.
func bridge(remote) (network, address string, end func(), err error) {
	return "", "", nil, errors.New("this package was made without TLS; make one with --address")
}
