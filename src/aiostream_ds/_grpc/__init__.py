"""The gRPC server: calls, message codec, method tables."""
