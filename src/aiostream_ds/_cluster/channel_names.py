"""The name of a channel in the engine: equal on all servers for the same stream, and for no other.

    myorg-stream-datasource.sensors-uid.sensors-kitchen.1f0c…        readable parts, and a digest

The digest covers everything that decides which rows a stream has: what a viewer may not read under
one name is never readable under another.
"""

import re
from typing import NamedTuple

__all__ = ["FORMAT", "ChannelIdentity", "channel_name"]

FORMAT = 1
"""The version of the messages. Nodes with another one do not read them: their channels have other
names."""

_OTHERS = re.compile(r"[^A-Za-z0-9_-]+")
_READABLE = 40  # characters of each part
_SECRET_BITS = 12


class ChannelIdentity(NamedTuple):
    """What the rows of a shared stream depend on besides its path: the organization, the data
    source with its settings, and the plugin with its version. `secrets` are the names and values of
    the secret settings."""

    tenant: str
    uid: str
    plugin_id: str
    plugin_version: str
    settings: tuple[bytes, ...]
    secrets: tuple[str, ...]


def channel_name(identity: ChannelIdentity, path: str, *, is_readable: bool = True) -> str:
    """The name of a path's channel: letters, digits and `-_.` only. `is_readable`: with parts that
    a person can read; the digest alone identifies the channel."""
    import hashlib  # needed for shared streams only

    from aiostream_ds._cluster.entries import PROTOCOL

    hashed = hashlib.blake2b(digest_size=16)
    texts = (identity.tenant, identity.uid, identity.plugin_id, identity.plugin_version)
    version = f"{FORMAT}.{PROTOCOL}".encode()
    for part in (version, *map(str.encode, texts), *identity.settings, path.encode()):
        hashed.update(len(part).to_bytes(8, "big"))  # no two lists of parts have the same bytes
        hashed.update(part)
    hashed.update(_secrets_digest(identity.secrets))
    digest = hashed.hexdigest()
    if not is_readable:
        return digest
    parts = (identity.plugin_id, identity.uid, path)
    return ".".join([*(_OTHERS.sub("-", part)[:_READABLE] for part in parts), digest])


def _secrets_digest(secrets: tuple[str, ...]) -> bytes:
    """Other secrets give another name, with a probability of 4095 in 4096: with all bits of the
    digest, who can read names could test guesses of a secret."""
    import hashlib

    joined = b"".join(len(s).to_bytes(8, "big") + s.encode() for s in secrets)
    digest = int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")
    return (digest >> (64 - _SECRET_BITS)).to_bytes(2, "big")
