"""The cluster of this process, as grafana.ini sets it in [plugin.<id>].

cluster_url = redis://redis.example:6379        GF_PLUGIN_CLUSTER_URL in the environment
"""

import base64
import binascii
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiostream_ds._cluster.cluster_access import ClusterAccess
from aiostream_ds._cluster.engine import Engine
from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    from aiostream_ds._tls import TlsSettings

__all__ = ["ClusterSettings", "cluster_access", "cluster_settings"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")
_REDIS = (
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_NATS = ("nats", "tls")
_KEY_BYTES = 32
_ENTRIES = 1_000
_MOST_ENTRIES = 1_000_000


class ClusterSettings(NamedTuple):
    """How a node reaches its cluster.

    `name` separates the clusters that share one server. `node` is the name of this process, which
    no other one has. `keys` encrypt what is sent: the first one encrypts, each of them decrypts.
    `entries` is how many messages of a channel the server keeps. The texts of the certificates, of
    the private key and of NATS' credentials come from files.
    """

    url: str
    name: str
    node: str
    user: str = ""
    password: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""
    credentials: str = ""
    ca_certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    replicas: int = 1
    entries: int = _ENTRIES
    keys: tuple[bytes, ...] = ()


def cluster_settings(environ: Mapping[str, str]) -> ClusterSettings | None:
    """The settings in the environment variables GF_PLUGIN_CLUSTER_…; None without a URL.

    Raises:
        ConfigError: a value is invalid. The message has no secret.
    """

    def value(key: str) -> str:
        return environ.get(f"GF_PLUGIN_CLUSTER_{key.upper()}", "").strip()

    url = value("url")
    if not url:
        return None
    _check_scheme(url)
    name = value("name") or "aiostream-ds"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"cluster_name must have 1 to 40 letters, digits and `-_`, got {name[:80]!r}"
        )
    certificate = _read("certificate_file", value("certificate_file"))
    key = _read("key_file", value("key_file"))
    if bool(certificate) != bool(key):
        raise ConfigError(
            "expected cluster_certificate_file and cluster_key_file together, got one of them"
        )
    authorities = _read("ca_file", value("ca_file"))
    if authorities or certificate:
        _check_tls(url, "ca_file" if authorities else "certificate_file")
    return ClusterSettings(
        url=url,
        name=name,
        node=_node(value("node")),
        user=value("user"),
        password=value("password"),
        sentinel_user=value("sentinel_user"),
        sentinel_password=value("sentinel_password"),
        credentials=_read("credentials_file", value("credentials_file")),
        ca_certificate=authorities,
        client_certificate=certificate,
        client_key=key,
        replicas=_number("replicas", value("replicas"), 1, 5),
        entries=_number("entries", value("entries"), _ENTRIES, _MOST_ENTRIES),
        keys=_keys(value("encryption_keys")),
    )


def cluster_access(settings: ClusterSettings) -> ClusterAccess:
    """The engine, which is not opened yet, and what else a node needs.

    Raises:
        ConfigError: a setting is invalid, or a package is not installed.
    """
    scheme = settings.url.partition("://")[0]
    engine = _redis_engine(settings) if scheme in _REDIS else _nats_engine(settings)
    cipher = None
    if settings.keys:
        from aiostream_ds._cluster.message_cipher import Cipher

        cipher = Cipher(settings.keys)
    return ClusterAccess(engine, settings.node, cipher)


def _redis_engine(settings: ClusterSettings) -> Engine:
    try:
        from aiostream_ds._cluster.redis.redis_engine import RedisEngine
        from aiostream_ds._cluster.redis.redis_url import RedisAccess
    except ImportError as error:
        raise ConfigError(
            f"a cluster on Redis needs the package redis ({error}); install aiostream-ds[cluster]"
        ) from error
    access = RedisAccess(
        settings.user,
        settings.password,
        settings.sentinel_user,
        settings.sentinel_password,
        _tls(settings),
    )
    return RedisEngine(
        settings.url, namespace=settings.name, access=access, entries=settings.entries
    )


def _nats_engine(settings: ClusterSettings) -> Engine:
    from aiostream_ds._cluster.nats.nats_engine import NatsEngine
    from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
    from aiostream_ds._nats.nats_servers import NatsLogin
    from aiostream_ds._tls import ssl_context

    has_tls = settings.url.startswith("tls://") or bool(
        settings.ca_certificate or settings.client_certificate
    )
    return NatsEngine(
        NatsEngineSettings(
            url=settings.url,
            login=NatsLogin(
                user=settings.user, password=settings.password, credentials=settings.credentials
            ),
            tls=ssl_context(_tls(settings)) if has_tls else None,
            name=settings.name,
            replicas=settings.replicas,
            entries=settings.entries,
        )
    )


def _tls(settings: ClusterSettings) -> "TlsSettings":
    from aiostream_ds._tls import TlsSettings
    from aiostream_ds.settings import Secret

    return TlsSettings(
        ca_certificate=settings.ca_certificate,
        client_certificate=settings.client_certificate,
        client_key=Secret(settings.client_key),
    )


def _check_scheme(url: str) -> None:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in (*_REDIS, *_NATS):
        expected = ", ".join(f"{each}://" for each in (*_REDIS, *_NATS))
        shown = repr(scheme[:40]) if separator else "a text without ://"
        raise ConfigError(f"cluster_url must begin with one of {expected}, got {shown}")


def _check_tls(url: str, key: str) -> None:
    """Certificates are for TLS. NATS has it with nats://, too: the connection demands it then."""
    scheme = url.partition("://")[0]
    if scheme not in _NATS and not scheme.startswith("rediss"):
        raise ConfigError(
            f"cluster_{key} is for TLS: cluster_url must begin with"
            f" {scheme.replace('redis', 'rediss', 1)}:// then, got {scheme}://"
        )


def _node(name: str) -> str:
    """The configured name or that of the host, with a random part: after a crash the process that
    is started again is another node."""
    shown = _OTHERS.sub("-", name or socket.gethostname())[:40] or "node"
    return f"{shown}-{os.urandom(4).hex()}"


def _read(key: str, path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise ConfigError(
            f"cluster_{key} must be a file that can be read, got {path!r}: {reason}"
        ) from None


def _number(key: str, text: str, default: int, most: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and 1 <= int(text) <= most):
        raise ConfigError(
            f"cluster_{key} must be a whole number from 1 to {most}, got {text[:80]!r}"
        )
    return int(text)


def _keys(text: str) -> tuple[bytes, ...]:
    found = []
    for number, word in enumerate(text.replace(",", " ").split(), 1):
        try:
            key = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError(
                f"cluster_encryption_keys must be keys of {_KEY_BYTES} bytes in base64, got another"
                f" text as key {number}; make one with: openssl rand -base64 {_KEY_BYTES}"
            )
        found.append(key)
    return tuple(found)
