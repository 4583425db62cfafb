"""TLS for a plugin that Grafana reaches over a network: its certificate, and whom it lets in.

The launcher of `aiostream-ds package --address --tls` is the client; Grafana itself speaks to
plugins without TLS.
"""

import ssl
from pathlib import Path

from aiostream_ds.errors import ConfigError

__all__ = ["server_context"]


def server_context(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """A context for HTTP/2 with this certificate; with `client_ca` only who has a certificate of
    that authority is let in. Files are PEM. Raises ConfigError for one that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the certificate {cert} with the key {key}: {error}") from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the authorities in {client_ca}: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
