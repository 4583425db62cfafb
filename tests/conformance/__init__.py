"""Grafana's own code against ours: go-plugin and the Go SDK drive the plugin process."""
