"""Encrypts the messages of a cluster, so that its server cannot read them. Imports cryptography."""

import hashlib
import os
from collections.abc import Sequence

from aiostream_ds.errors import ConfigError

__all__ = ["KEY_BYTES", "Cipher", "UnreadableMessage"]

KEY_BYTES = 32
"""Bytes of a key."""

_NONCE = 12


class UnreadableMessage(Exception):
    """The bytes are not a message, of another version, or encrypted by another key."""


class Cipher:
    """Encrypts messages by AES-GCM with the first key; decrypts those of any of the keys.

    To change the key: first add the new one as the second key on all servers, then make it the
    first, then remove the old one.

    Args:
        keys: each of 32 bytes.

    Raises:
        ConfigError: there is no key, a key has another length, or the package cryptography is not
            installed.
    """

    __slots__ = ("_ciphers", "_nonce_key")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigError("expected at least one cluster key, got none")
        for key in keys:
            if len(key) != KEY_BYTES:
                raise ConfigError(f"a cluster key must have {KEY_BYTES} bytes, got {len(key)}")
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigError(
                "the encryption of a cluster needs the package cryptography;"
                " install aiostream-ds[cluster]"
            ) from error
        self._ciphers = [AESGCM(key) for key in keys]
        self._nonce_key = hashlib.blake2b(
            key=keys[0], person=b"nonce of schema", digest_size=KEY_BYTES
        ).digest()

    def encrypt(self, data: bytes, channel: str, *, same: bool = False) -> bytes:
        """The data, encrypted for this channel: in another one it cannot be decrypted.

        `same`: the same data gives the same bytes on each node, so that these can be compared.
        """
        name = channel.encode()
        nonce = self._derived_nonce(data, name) if same else os.urandom(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, data, name)

    def _derived_nonce(self, data: bytes, channel: bytes) -> bytes:
        """Another one for other data, and for another channel: from two messages with one nonce
        anybody can compute what is needed to forge more."""
        derived = hashlib.blake2b(key=self._nonce_key, digest_size=_NONCE)
        derived.update(len(channel).to_bytes(8, "big"))
        derived.update(channel)
        derived.update(data)
        return derived.digest()

    def decrypt(self, data: bytes, channel: str) -> bytes:
        """Raises UnreadableMessage for what none of the keys has encrypted for this channel."""
        from cryptography.exceptions import InvalidTag

        for cipher in self._ciphers:
            try:
                return cipher.decrypt(data[:_NONCE], data[_NONCE:], channel.encode())
            except (InvalidTag, ValueError):
                continue
        raise UnreadableMessage("it is encrypted by another key")
