"""Header blocks of a host become fields (RFC 7541).

A host puts what differs in each call, as a deadline or a trace, into the dynamic table, so hardly
two blocks are equal: each has to be decoded.
"""

from aiostream_ds._http2.huffman import decode_huffman
from aiostream_ds._http2.protocol_errors import Http2Error, RateLimitExceeded
from aiostream_ds._http2.wire import ErrorCode

__all__ = ["BlockDecoder", "Field"]

Field = tuple[bytes, bytes]
"""Name and value of a header."""

TABLE_SIZE = 4_096
"""The largest size of the dynamic table (4.2): that of SETTINGS_HEADER_TABLE_SIZE, which is not
sent."""

_ENTRY_OVERHEAD = 32  # 4.1
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

    __slots__ = ("_entries", "_limit", "_size", "_table_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[Field] = []  # the dynamic table, the newest entry last
        self._size = 0
        self._table_size = TABLE_SIZE

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a block.

        Raises Http2Error COMPRESSION_ERROR for a block that is not valid, and RateLimitExceeded
        above the limit. The connection is over then.
        """
        fields: list[Field] = []
        position, end, listed = 0, len(block), 0
        try:
            while position < end:
                first = block[position]
                position += 1
                if first > 0x7F:  # 6.1: indexed
                    index = first & 0x7F
                    if index == 0x7F:
                        index, position = _integer(block, position, index)
                    field = self._entry(index)
                elif first & 0xE0 == 0x20:  # 6.3
                    position = self._resize(block, position, first & 0x1F, fields)
                    continue
                else:  # 6.2: a literal, which enters the table or not
                    mask = 0x3F if first > 0x3F else 0x0F
                    index = first & mask
                    if index == mask:
                        index, position = _integer(block, position, index)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, position = _string(block, position)
                    value, position = _string(block, position)
                    field = name, value
                    if first > 0x3F:
                        self._add(field)
                fields.append(field)
                listed += len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
                if listed > self._limit:
                    raise RateLimitExceeded(
                        f"oversized header block: at most {self._limit} bytes are allowed"
                    )
        except IndexError:
            raise _invalid(f"expected a whole field at byte {position}") from None
        return fields

    def _entry(self, index: int) -> Field:
        """2.3.3: the static table, then the dynamic one, the newest entry first."""
        if index >= _FIRST_DYNAMIC:
            place = index - _FIRST_DYNAMIC
            if place < len(self._entries):
                return self._entries[-1 - place]
        elif index:
            return _STATIC[index - 1]
        last = len(_STATIC) + len(self._entries)
        raise _invalid(f"an index must be 1 to {last}, got {index}")

    def _add(self, field: Field) -> None:
        """4.4: an entry that is larger than the table empties it."""
        self._entries.append(field)
        self._size += _size_of(field)
        if self._size > self._table_size:
            self._evict()

    def _evict(self) -> None:
        """4.3."""
        entries, count = self._entries, 0
        while self._size > self._table_size:
            self._size -= _size_of(entries[count])
            count += 1
        del entries[:count]

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


def _size_of(field: Field) -> int:
    """4.1."""
    return len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD


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
