"""The login with a credentials file of NATS: a JWT, and the seed of a key that signs a nonce."""

import re
from base64 import b32decode, urlsafe_b64encode
from importlib.util import find_spec
from typing import NamedTuple

from aiostream_ds.errors import ConfigError

__all__ = ["NatsCredentials", "parse_credentials"]

_BLOCK = re.compile(r"-+BEGIN (NATS USER JWT|USER NKEY SEED)-+\s*(\S+?)\s*-+END \1-+")
_SEED_BYTES = 2 + 32 + 2
"""Two with the kinds of the key, the key, two of a checksum."""

_USER_SEED = (18 << 3 | 20 << 3 >> 5, 0)
"""The first two bytes of the seed of a user, which make it begin with SU."""


class NatsCredentials(NamedTuple):
    """What a credentials file contains."""

    jwt: str
    key: bytes

    def sign(self, nonce: str) -> str:
        """The signature of a server's nonce. Imports cryptography."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        signature = Ed25519PrivateKey.from_private_bytes(self.key).sign(nonce.encode())
        return urlsafe_b64encode(signature).rstrip(b"=").decode()


def parse_credentials(text: str) -> NatsCredentials:
    """The content of a credentials file.

    Raises:
        ConfigError: it is not such a file, its seed is damaged, or the package cryptography is not
            installed.
    """
    if find_spec("cryptography") is None:
        raise ConfigError(
            "NATS credentials need the package cryptography; install aiostream-ds[cluster], or"
            " package the plugin with --with cryptography"
        )
    # an input of one line has spaces or \\n for line breaks
    blocks = dict(_BLOCK.findall(text.replace("\\n", "\n")))
    if len(blocks) != 2:
        raise ConfigError(
            "NATS credentials must have a block NATS USER JWT and a block USER NKEY SEED, got"
            f" {len(text)} characters with {', '.join(blocks) or 'neither'}"
        )
    return NatsCredentials(blocks["NATS USER JWT"], _key(blocks["USER NKEY SEED"]))


def _key(seed: str) -> bytes:
    try:
        raw = b32decode(seed + "=" * (-len(seed) % 8))
    except ValueError:
        raw = b""
    if len(raw) != _SEED_BYTES or _checksum(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise ConfigError("the seed of NATS credentials is damaged; its checksum does not fit")
    if (raw[0], raw[1]) != _USER_SEED:
        raise ConfigError("the seed of NATS credentials must be of a user, and begin with SU")
    return raw[2:-2]


def _checksum(data: bytes) -> int:
    """CRC-16 of XMODEM."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021) & 0xFFFF if value & 0x8000 else value << 1
    return value & 0xFFFF
