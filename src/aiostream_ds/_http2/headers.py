"""The headers of a call, both ways, without work that is the same in call after call.

Requests: a host says the same again with the same few bytes, so what they mean is remembered.
Replies: no compression table, so that a reply's headers are the same bytes each time.
Knows HPACK (RFC 7541) and hpack 4; tests/http2/test_headers.py says what it relies on.
Imports floods.py.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from aiostream_ds._http2.rate_limits import malformed

__all__ = ["Head", "RememberingDecoder", "encode_headers", "read_head", "with_table_size"]

RawHeaders = tuple[tuple[bytes, bytes], ...]

_KEPT, _KEPT_BYTES = 256, 4 * 1024
"""How many header lists are remembered, and up to which size each."""

_NOT_METADATA = frozenset({"content-type", "te", "user-agent"})


class Head(NamedTuple):
    """What the headers of a request say. `fault` is why they are no request's, or None."""

    method: str
    path: str
    content_type: str
    timeout: str | None
    metadata: Mapping[str, str]
    fault: str | None


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """What these headers say: the same object for the same headers. Treat it as frozen."""
    key: RawHeaders = tuple(headers)
    if sum(len(name) + len(value) for name, value in key) > _KEPT_BYTES:
        return _read_head.__wrapped__(key)
    return _read_head(key)


@lru_cache(maxsize=_KEPT)
def _read_head(headers: RawHeaders) -> Head:
    # latin-1 reads every header there is; with ascii an umlaut would end the connection
    texts = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    fields = dict(texts)
    metadata: dict[str, str] = {}
    for name, value in texts:
        if not name.startswith((":", "grpc-")) and name not in _NOT_METADATA:
            known = metadata.get(name)
            metadata[name] = value if known is None else f"{known},{value}"
    return Head(
        fields.get(":method", ""),
        fields.get(":path", ""),
        fields.get("content-type", ""),
        fields.get("grpc-timeout"),
        metadata,
        malformed(texts),
    )


class RememberingDecoder(Decoder):
    """hpack's decoder, which decodes a block of nothing but references once.

    Such a block means the same as long as the table is the same, and only other blocks change it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, Any] = {}

    def decode(self, data: bytes, raw: bool = False) -> Any:
        """The block's headers; the same list for the same block. Raises what hpack raises."""
        block = bytes(data)
        found = self._known.get(block)
        if found is None:
            found = super().decode(block, raw)
            if block and min(block) >= 0x80:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                self._known[block] = found
            else:
                self._known.clear()
        return found


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that no table remembers. Names are lower-case ASCII."""
    block = bytearray()
    for name, value in headers:
        block += b"\0" + _string(name) + _string(value)
    return bytes(block)


def _string(text: str) -> bytes:
    """A string literal as it is (RFC 7541, 5.2), its length in front (5.1)."""
    data = text.encode("ascii")
    size = len(data)
    if size < 0x7F:
        return bytes((size,)) + data
    head, rest = bytearray(b"\x7f"), size - 0x7F
    while rest > 0x7F:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return bytes(head) + data


def with_table_size(encoder: Encoder, block: bytes) -> bytes:
    """The block, after the change of table size that the host is due if it asked for one."""
    if encoder.header_table.resized:
        return encoder.encode(()) + block
    return block
