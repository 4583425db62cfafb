"""The plugin process: go-plugin handshake, standard streams, TLS, watchdog, `serve`."""
