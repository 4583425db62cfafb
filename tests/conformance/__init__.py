"""Conformance tests: Grafana's code (go-plugin and the Go SDK) drives the plugin process."""
