"""Header blocks of a host become fields (RFC 7541).

A host puts what differs in each call, as a deadline or a trace, into the dynamic table, so hardly
two blocks are equal: each has to be decoded.
"""

from collections.abc import Sequence
from itertools import chain

from aiostream_ds._http2.huffman import decode_huffman
from aiostream_ds._http2.protocol_errors import Http2Error, RateLimitExceeded
from aiostream_ds._http2.wire import ErrorCode

__all__ = ["BlockDecoder", "Field", "list_size"]

Field = tuple[bytes, bytes]
"""Name and value of a header."""

TABLE_SIZE = 4_096
"""The largest size of the dynamic table (4.2): that of SETTINGS_HEADER_TABLE_SIZE, which is not
sent."""

_ENTRY_OVERHEAD = 32  # 4.1
_PART = 1_024  # bytes of a block after which its fields are counted; most blocks are shorter
_LONGEST_INTEGER = 5  # bytes after its prefix; longer ones are errors (5.1)
# appendix A; names without a value have the empty one
_STATIC: tuple[Field, ...] = (
    (b":authority", b""),
    *[(b":method", value) for value in (b"GET", b"POST")],
    *[(b":path", value) for value in (b"/", b"/index.html")],
    *[(b":scheme", value) for value in (b"http", b"https")],
    *[(b":status", b"%d" % code) for code in (200, 204, 206, 304, 400, 404, 500)],
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    *[
        (name.encode(), b"")
        for name in (
            "accept-language accept-ranges accept access-control-allow-origin age allow"
            " authorization cache-control content-disposition content-encoding content-language"
            " content-length content-location content-range content-type cookie date etag expect"
            " expires from host if-match if-modified-since if-none-match if-range"
            " if-unmodified-since last-modified link location max-forwards proxy-authenticate"
            " proxy-authorization range referer refresh retry-after server set-cookie"
            " strict-transport-security transfer-encoding user-agent vary via www-authenticate"
        ).split()
    ],
)
_FIRST_DYNAMIC = len(_STATIC) + 1


class BlockDecoder:
    """Decodes the header blocks of one connection, in their order: each may change the dynamic
    table.

    Args:
        limit: bytes of the fields of one block, counted as in SETTINGS_MAX_HEADER_LIST_SIZE.
    """

    __slots__ = ("_limit", "_size", "_table", "_table_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # by index: nothing, the static table, and the dynamic one, whose newest entry is first
        self._table: list[Field] = [(b"", b""), *_STATIC]
        self._size = 0  # of the dynamic table
        self._table_size = TABLE_SIZE

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a block.

        Raises Http2Error COMPRESSION_ERROR for a block that is not valid, and RateLimitExceeded
        above the limit. The connection is over then.
        """
        fields: list[Field] = []
        position, end = 0, len(block)
        while position < end:
            position = self._decode_some(block, position, fields)
            # a field is an entry of the table, or in the block; nearly no list has to be counted
            largest = TABLE_SIZE * len(fields) + 2 * end
            if largest > self._limit and list_size(fields) > self._limit:
                raise RateLimitExceeded(
                    f"oversized header block: at most {self._limit} bytes are allowed"
                )
        return fields

    def _decode_some(self, block: bytes, position: int, fields: list[Field]) -> int:
        """Decode the fields that begin in the next `_PART` bytes. Returns the next position."""
        table, end = self._table, min(len(block), position + _PART)
        try:
            while position < end:
                first = block[position]
                position += 1
                if first > 0x7F:  # 6.1: indexed; nearly every field
                    index = first & 0x7F
                    if index == 0x7F:
                        index, position = _integer(block, position, index)
                    if not 0 < index < len(table):
                        raise self._no_entry(index)
                    fields.append(table[index])
                elif first & 0xE0 == 0x20:  # 6.3
                    position = self._resize(block, position, first & 0x1F, fields)
                else:
                    position = self._literal(block, position, first, fields)
        except IndexError:
            raise _invalid(f"expected a whole field at byte {position}") from None
        return position

    def _literal(self, block: bytes, position: int, first: int, fields: list[Field]) -> int:
        """6.2: a field that enters the table or not. Returns the next position."""
        mask = 0x3F if first > 0x3F else 0x0F
        index = first & mask
        if index == mask:
            index, position = _integer(block, position, index)
        if not index:
            name, position = _string(block, position)
        elif index < len(self._table):
            name = self._table[index][0]
        else:
            raise self._no_entry(index)
        value, position = _string(block, position)
        fields.append((name, value))
        if first > 0x3F:
            self._add((name, value))
        return position

    def _no_entry(self, index: int) -> Http2Error:
        """2.3.3: the static table, then the dynamic one, the newest entry first."""
        return _invalid(f"an index must be 1 to {len(self._table) - 1}, got {index}")

    def _add(self, field: Field) -> None:
        """4.4: an entry that is larger than the table empties it."""
        self._table.insert(_FIRST_DYNAMIC, field)
        self._size += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
        if self._size > self._table_size:
            self._evict()

    def _evict(self) -> None:
        """4.3."""
        while self._size > self._table_size:
            self._size -= list_size((self._table.pop(),))

    def _resize(self, block: bytes, position: int, size: int, fields: list[Field]) -> int:
        """4.2 and 6.3: the host changes the size of the table. Returns the next position."""
        if size == 0x1F:
            size, position = _integer(block, position, size)
        if fields:
            raise _invalid("the table's size must be changed before the first field")
        if size > TABLE_SIZE:
            raise _invalid(f"the table must have at most {TABLE_SIZE} bytes, got {size}")
        self._table_size = size
        self._evict()
        return position


def list_size(fields: Sequence[Field]) -> int:
    """The size of these fields, as SETTINGS_MAX_HEADER_LIST_SIZE and the size of the table count it
    (4.1; RFC 9113, 6.5.2)."""
    return sum(map(len, chain.from_iterable(fields))) + _ENTRY_OVERHEAD * len(fields)


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """5.2: a string, and the position after it."""
    first = block[position]
    position += 1
    size = first & 0x7F
    if size == 0x7F:
        size, position = _integer(block, position, size)
    end = position + size
    if end > len(block):
        raise _invalid(f"expected a string of {size} bytes, got {len(block) - position}")
    text = block[position:end]
    if first < 0x80:
        return text, end
    try:
        return decode_huffman(text), end
    except ValueError as error:
        raise _invalid(str(error)) from None


def _integer(block: bytes, position: int, number: int) -> tuple[int, int]:
    """5.1: an integer whose prefix is `number`, and the position after it."""
    shift = 0
    while True:
        byte = block[position]
        position += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift >= 7 * _LONGEST_INTEGER:
            raise _invalid(
                f"an integer must have at most {_LONGEST_INTEGER} bytes after its prefix"
            )


def _invalid(reason: str) -> Http2Error:
    return Http2Error(ErrorCode.COMPRESSION_ERROR, f"cannot decode a header block: {reason}")
