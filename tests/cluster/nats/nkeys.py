"""Keys of NATS, and JWTs that they sign, as `nsc` makes them."""

import hashlib
import json
from base64 import b32encode, urlsafe_b64encode
from binascii import crc_hqx
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED = 18 << 3
_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


class Key:
    """A new key of a kind."""

    def __init__(self, kind: Literal["operator", "account", "user"]) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.kind = kind
        self.private = self._key.private_bytes_raw()
        code = _KINDS[kind]
        self.seed = _encoded(bytes((_SEED | code >> 5, (code & 31) << 3)) + self.private)
        self.public = _encoded(bytes((code,)) + self._key.public_key().public_bytes_raw())

    def sign(self, subject: "Key", name: str, nats: Mapping[str, Any]) -> str:
        """A JWT about another key."""
        claims: dict[str, Any] = {
            "iat": 1_700_000_000,
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {"type": subject.kind, "version": 2, **nats},
        }
        digest = hashlib.sha256(json.dumps(claims).encode()).digest()
        claims["jti"] = b32encode(digest).rstrip(b"=").decode()
        head = _base64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        text = f"{head}.{_base64(json.dumps(claims).encode())}"
        return f"{text}.{_base64(self._key.sign(text.encode()))}"

    def credentials(self, jwt: str) -> str:
        """A credentials file."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def _encoded(data: bytes) -> str:
    return b32encode(data + crc_hqx(data, 0).to_bytes(2, "little")).rstrip(b"=").decode()


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
