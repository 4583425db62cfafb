"""The gRPC server: calls, messages, method tables."""
