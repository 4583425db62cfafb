"""Grafana's gRPC services, one module each."""
