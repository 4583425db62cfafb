"""HTTP/2 of a server without I/O: received bytes become events, answers become bytes (RFC 9113)."""
