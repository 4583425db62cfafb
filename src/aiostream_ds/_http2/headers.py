"""HTTP/2 headers: parsed requests are cached, responses are encoded without a dynamic table.

Requests: a host sends the same headers in the same few bytes, so the parsed result is cached.
Responses: without a dynamic table the headers of a response are the same bytes each time.
Relies on private parts of hpack 4; tests/http2/test_headers.py checks them.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

__all__ = [
    "CachingDecoder",
    "RequestHead",
    "encode_headers",
    "find_malformation",
    "parse_request_head",
    "with_table_size",
]

RawHeaders = tuple[tuple[bytes, bytes], ...]

_CACHE_SIZE, _CACHE_ITEM_BYTES = 256, 4 * 1024
"""How many header lists are cached, and how large each may be."""

_NOT_METADATA = frozenset({"content-type", "te", "user-agent"})
_PSEUDO_HEADERS = frozenset({":method", ":scheme", ":path"})
_CONNECTION_HEADERS = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)


class RequestHead(NamedTuple):
    """The parsed headers of a request. `error` is why the request is malformed, or None."""

    method: str
    path: str
    content_type: str
    timeout: str | None
    metadata: Mapping[str, str]
    error: str | None


def parse_request_head(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Parse a request's headers. Equal headers share one cached object: do not change it."""
    key: RawHeaders = tuple(headers)
    if sum(len(name) + len(value) for name, value in key) > _CACHE_ITEM_BYTES:
        return _parse_request_head.__wrapped__(key)
    return _parse_request_head(key)


@lru_cache(maxsize=_CACHE_SIZE)
def _parse_request_head(headers: RawHeaders) -> RequestHead:
    # latin-1 decodes every byte; with ascii an umlaut would close the connection
    decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    fields = dict(decoded)
    metadata: dict[str, str] = {}
    for name, value in decoded:
        if not name.startswith((":", "grpc-")) and name not in _NOT_METADATA:
            previous = metadata.get(name)
            metadata[name] = value if previous is None else f"{previous},{value}"
    return RequestHead(
        fields.get(":method", ""),
        fields.get(":path", ""),
        fields.get("content-type", ""),
        fields.get("grpc-timeout"),
        metadata,
        find_malformation(decoded),
    )


def find_malformation(headers: Iterable[tuple[str, str]]) -> str | None:
    """Why a request with these headers is malformed (RFC 9113, 8.2 and 8.3), or None."""
    names = []
    for name, value in headers:
        names.append(name)
        if name == "te" and value != "trailers":
            return f"te must be 'trailers', got {value!r}"
        if not value and name == ":path":
            return ":path must not be empty"
    return _find_malformed_name(tuple(names))


@lru_cache(maxsize=64)  # a host has few sets of names; an entry may have 64 KiB
def _find_malformed_name(names: tuple[str, ...]) -> str | None:
    pseudo = [name for name in names if name[:1] == ":"]
    if set(pseudo) - {":authority"} != _PSEUDO_HEADERS or len(set(pseudo)) != len(pseudo):
        return f"expected :method, :scheme and :path once each, got {pseudo!r}"
    if tuple(pseudo) != names[: len(pseudo)]:
        return f"expected pseudo-headers before all other headers, got {list(names)!r}"
    for name in names:
        if not name or name != name.lower() or not name.isascii() or not name.isprintable():
            return f"header names must be lower-case ASCII, got {name!r}"
        if " " in name:
            return f"header names must not contain spaces, got {name!r}"
        if name in _CONNECTION_HEADERS:
            return f"HTTP/2 has no connection-specific headers, got {name!r}"
    return None


class CachingDecoder(Decoder):
    """hpack's decoder, which decodes a header block of nothing but indexed fields once.

    Such a block has the same meaning as long as the dynamic table is the same, and only other
    blocks change the table.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[bytes, Any] = {}

    def decode(self, data: bytes, raw: bool = False) -> Any:
        """The block's headers; the same list for the same block. Raises what hpack raises."""
        block = bytes(data)
        found = self._cache.get(block)
        if found is None:
            found = super().decode(block, raw)
            if block and min(block) >= 0x80:
                if len(self._cache) >= _CACHE_SIZE:
                    self._cache.clear()
                self._cache[block] = found
            else:
                self._cache.clear()
        return found


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals without indexing. Names are lower-case ASCII."""
    block = bytearray()
    for name, value in headers:
        block += b"\0" + _encode_string(name) + _encode_string(value)
    return bytes(block)


def _encode_string(text: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541, 5.2), with its length (5.1)."""
    data = text.encode("ascii")
    size = len(data)
    if size < 0x7F:
        return bytes((size,)) + data
    prefix, rest = bytearray(b"\x7f"), size - 0x7F
    while rest > 0x7F:
        prefix.append(rest & 0x7F | 0x80)
        rest >>= 7
    prefix.append(rest)
    return bytes(prefix) + data


def with_table_size(encoder: Encoder, block: bytes) -> bytes:
    """The block, after the dynamic table size update (RFC 7541, 6.3) if one is pending."""
    if encoder.header_table.resized:
        return encoder.encode(()) + block
    return block
