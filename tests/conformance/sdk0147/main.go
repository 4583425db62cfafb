// Prints the protobuf declarations of Grafana 9.4's SDK (v0.147.0) and its go-plugin as JSON, for
// tests/conformance/test_descriptors.py. Build it in this folder; it takes no arguments.
package main

import (
	"fmt"
	"os"

	_ "github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	_ "github.com/hashicorp/go-plugin"
	_ "google.golang.org/grpc/health/grpc_health_v1"

	"conformance/descriptors"
)

func main() {
	if err := descriptors.Write(os.Stdout, "pluginv2", "plugin", "grpc.health.v1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
