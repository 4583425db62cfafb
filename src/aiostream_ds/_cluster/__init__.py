"""One run of a stream for many Grafana servers: ownership, the shared log, and its followers."""
