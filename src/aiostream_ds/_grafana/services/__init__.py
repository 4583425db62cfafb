"""One module for each of Grafana's gRPC services."""
