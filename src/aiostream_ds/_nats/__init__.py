"""Connections to NATS servers."""
