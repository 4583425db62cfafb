"""The cluster of this process, as grafana.ini sets it in [plugin.<id>]."""

import base64
import binascii
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.errors import ConfigError

__all__ = ["ClusterSettings", "cluster_settings"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")
_ENGINES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "nats", "tls")


class ClusterSettings(NamedTuple):
    """How a node reaches its cluster.

    `name` separates the clusters that share one server. `node` is the name of this process, which
    no other one has. `keys` encrypt what is sent: the first one encrypts, each of them decrypts.
    The other fields are files in PEM, "" for none: of the authority that has signed the server's
    certificate, and of this client's certificate and key.
    """

    url: str
    name: str = "default"
    node: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    keys: tuple[bytes, ...] = ()

    @property
    def engine(self) -> str:
        """The kind of the server: `redis` or `nats`."""
        return "redis" if self.url.startswith("redis") else "nats"


def cluster_settings(environ: Mapping[str, str]) -> ClusterSettings | None:
    """The settings in the environment variables GF_PLUGIN_CLUSTER_…; None without a URL.

    Raises:
        ConfigError: a value is invalid. The message has no secret.
    """
    url = environ.get("GF_PLUGIN_CLUSTER_URL", "").strip()
    if not url:
        return None
    scheme = url.partition("://")[0]
    if scheme not in _ENGINES or "://" not in url:
        shown = scheme if "://" in url else "a text without ://"
        raise ConfigError(
            f"cluster_url must begin with {', '.join(f'{each}://' for each in _ENGINES)},"
            f" got {shown[:40]!r}"
        )
    name = environ.get("GF_PLUGIN_CLUSTER_NAME", "") or "default"
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"cluster_name must have 1 to 40 letters, digits and `-_`, got {name[:80]!r}"
        )
    files = {key: _file(environ, key) for key in ("ca_file", "certificate_file", "key_file")}
    if bool(files["certificate_file"]) != bool(files["key_file"]):
        raise ConfigError(
            "expected cluster_certificate_file and cluster_key_file together, got one of them"
        )
    keys = _keys(environ.get("GF_PLUGIN_CLUSTER_ENCRYPTION_KEYS", ""))
    return ClusterSettings(url, name, _node(environ), keys=keys, **files)


def _node(environ: Mapping[str, str]) -> str:
    """The configured name or that of the host, with a random part: after a crash the process that
    is started again is another node."""
    name = environ.get("GF_PLUGIN_CLUSTER_NODE", "") or socket.gethostname()
    return f"{_OTHERS.sub('-', name)[:40] or 'node'}-{os.urandom(4).hex()}"


def _file(environ: Mapping[str, str], key: str) -> str:
    path = environ.get(f"GF_PLUGIN_CLUSTER_{key.upper()}", "").strip()
    if path and not Path(path).is_file():
        raise ConfigError(f"cluster_{key} must be a file, got {path!r}")
    return path


def _keys(text: str) -> tuple[bytes, ...]:
    found = []
    for number, word in enumerate(text.replace(",", " ").split(), 1):
        try:
            key = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ConfigError(
                "cluster_encryption_keys must be keys of 32 bytes in base64, got another text as"
                f" key {number}; make one with: openssl rand -base64 32"
            )
        found.append(key)
    return tuple(found)
