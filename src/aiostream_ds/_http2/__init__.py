"""The HTTP/2 connection below gRPC."""
