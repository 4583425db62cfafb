"""HTTP/2 headers: parsed requests are cached, responses are encoded without a dynamic table.

Requests: a host sends the same headers in the same few bytes, so the parsed result is cached.
Responses: without a dynamic table the headers of a response are the same bytes each time.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from aiostream_ds._http2.header_blocks import BlockDecoder, Field, list_size

__all__ = [
    "HEADER_LIST_LIMIT",
    "HeaderDecoder",
    "RequestHead",
    "encode_headers",
    "find_malformation",
    "find_malformed_trailers",
    "parse_request_head",
]

HEADER_LIST_LIMIT = 64 * 1024
"""Bytes of the headers of one request, as SETTINGS_MAX_HEADER_LIST_SIZE counts them. A longer list
ends the connection."""

RawHeaders = tuple[Field, ...]

_CACHE_SIZE, _CACHE_ITEM_BYTES = 256, 4 * 1024
"""How many header lists are cached, and how large each may be."""

_TIMEOUT = b"grpc-timeout"
_ANY_TIMEOUT = _TIMEOUT, b""

_NOT_METADATA = frozenset({"content-type", "te", "user-agent"})
_PSEUDO_HEADERS = frozenset({":method", ":scheme", ":path"})
_FORBIDDEN_IN_VALUES = frozenset("\0\r\n")
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
    content_length: int | None
    error: str | None


def parse_request_head(headers: Iterable[Field]) -> RequestHead:
    """Parse a request's headers. Equal headers share one cached object: do not change it. So do
    headers that differ in their deadlines only, except for `timeout`."""
    fields = list(headers)
    timeout = dict(fields).get(_TIMEOUT)
    if timeout is None or not timeout.isalnum():
        return _head_of(tuple(fields))
    # in its place: no pseudo-header may follow it
    fields[fields.index((_TIMEOUT, timeout))] = _ANY_TIMEOUT
    head = _head_of(tuple(fields))
    return RequestHead(*head[:3], timeout.decode(), *head[4:])


def _head_of(key: RawHeaders) -> RequestHead:
    head = _heads.get(key)
    if head is None:
        head = _parse_request_head(key)
        if list_size(key) <= _CACHE_ITEM_BYTES:
            if len(_heads) >= _CACHE_SIZE:
                _heads.clear()
            _heads[key] = head
    return head


_heads: dict[RawHeaders, RequestHead] = {}


def _parse_request_head(headers: RawHeaders) -> RequestHead:
    # latin-1 decodes every byte; with ascii an umlaut would close the connection
    decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    fields = dict(decoded)
    metadata: dict[str, str] = {}
    for name, value in decoded:
        if not name.startswith((":", "grpc-")) and name not in _NOT_METADATA:
            previous = metadata.get(name)
            metadata[name] = value if previous is None else f"{previous},{value}"
    error = find_malformation(decoded)
    length = None if error else fields.get("content-length")
    return RequestHead(
        fields.get(":method", ""),
        fields.get(":path", ""),
        fields.get("content-type", ""),
        fields.get("grpc-timeout"),
        metadata,
        None if length is None else int(length),
        error,
    )


def find_malformation(headers: Iterable[tuple[str, str]]) -> str | None:
    """Why a request with these headers is malformed (RFC 9113, 8.2 and 8.3), or None.

    A value may begin or end with a space or a tab, against 8.2.1: grpc-go sends metadata as it is,
    such as the name of a user, and a refusal would end the whole call. The servers of Go and hyper,
    nginx and HAProxy accept such values, too.
    """
    names = []
    lengths = set()
    for name, value in headers:
        names.append(name)
        if name == "te" and value != "trailers":
            return f"te must be 'trailers', got {value!r}"
        if name == "content-length":
            lengths.add(value)
        if not value and name == ":path":
            return ":path must not be empty"
        if not value.isprintable() and not _FORBIDDEN_IN_VALUES.isdisjoint(value):
            return f"header values must not contain NUL, CR or LF, got {value!r} for {name!r}"
    if lengths and (len(lengths) > 1 or not _is_number(*lengths)):
        return f"content-length must be one number, got {sorted(lengths)}"
    return _find_malformed_name(tuple(names))


def find_malformed_trailers(headers: Iterable[Field]) -> str | None:
    """Why these trailers make their request malformed (RFC 9113, 8.1), or None."""
    return _find_malformed_field(tuple(name.decode("latin-1") for name, _ in headers))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


@lru_cache(maxsize=64)  # a host has few sets of names; an entry may have 64 KiB
def _find_malformed_name(names: tuple[str, ...]) -> str | None:
    pseudo = [name for name in names if name[:1] == ":"]
    if set(pseudo) - {":authority"} != _PSEUDO_HEADERS or len(set(pseudo)) != len(pseudo):
        return f"expected :method, :scheme and :path once each, got {pseudo!r}"
    if tuple(pseudo) != names[: len(pseudo)]:
        return f"expected pseudo-headers before all other headers, got {list(names)!r}"
    return _find_malformed_field(names[len(pseudo) :])


def _find_malformed_field(names: tuple[str, ...]) -> str | None:
    for name in names:
        if name[:1] == ":":
            return f"trailers have no pseudo-headers, got {name!r}"
        if not name or name != name.lower() or not name.isascii() or not name.isprintable():
            return f"header names must be lower-case ASCII, got {name!r}"
        if " " in name or ":" in name:  # 8.2.1
            return f"header names must not contain spaces or colons, got {name!r}"
        if name in _CONNECTION_HEADERS:
            return f"HTTP/2 has no connection-specific headers, got {name!r}"
    return None


class HeaderDecoder:
    """Decodes the header blocks of one connection (RFC 7541).

    A request's block of nothing but indexed fields is decoded and parsed once: it has the same
    meaning as long as the dynamic table is the same, and only other blocks change the table.
    """

    __slots__ = ("_decoder", "_heads")

    def __init__(self) -> None:
        self._decoder = BlockDecoder(HEADER_LIST_LIMIT)
        self._heads: dict[bytes, RequestHead] = {}

    def request(self, block: bytes) -> RequestHead:
        """The parsed headers of a request; the same object for the same block.

        Raises Http2Error COMPRESSION_ERROR, and RateLimitExceeded above `HEADER_LIST_LIMIT`.
        """
        head = self._heads.get(block)
        if head is None:
            head = parse_request_head(self._decode(block))
            if block and min(block) >= 0x80:
                if len(self._heads) >= _CACHE_SIZE:
                    self._heads.clear()
                self._heads[block] = head
        return head

    def trailers(self, block: bytes) -> str | None:
        """Why the trailers are malformed, or None. Raises what `request` raises."""
        return find_malformed_trailers(self._decode(block))

    def _decode(self, block: bytes) -> list[Field]:
        if block and min(block) < 0x80:
            self._heads.clear()
        return self._decoder.decode(block)


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
