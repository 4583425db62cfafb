"""HTTP/2, the connection below gRPC."""
