"""Connections through a SOCKS proxy, by aiohttp-socks."""

from typing import Any

from aiohttp import TCPConnector
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError
from aiohttp_socks import ProxyType as Kind

from aiostream_ds.sources.http_client.proxies import Proxy

__all__ = ["SOCKS_ERRORS", "socks_connector"]

# what connections through it raise
SOCKS_ERRORS = (ProxyConnectionError, ProxyError, ProxyTimeoutError)


def socks_connector(proxy: Proxy, options: dict[str, Any]) -> TCPConnector:
    """A connector whose connections go through the proxy, which also resolves the names.

    Args:
        options: the other arguments of the connector.
    """
    return ProxyConnector(
        proxy_type=Kind.SOCKS5 if proxy.scheme == "socks5" else Kind.SOCKS4,
        host=proxy.host,
        port=proxy.port,
        username=proxy.user or None,
        password=proxy.password.reveal() or None,
        rdns=True,
        **options,
    )
