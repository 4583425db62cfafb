"""gRPC's message prefix and protobuf's field headers, for messages that are encoded by hand."""

from functools import lru_cache

__all__ = ["bytes_header", "message_prefix", "varint", "varint_field"]

_UINT64 = (1 << 64) - 1


def message_prefix(size: int) -> bytes:
    """The five bytes before an uncompressed gRPC message of `size` bytes."""
    return b"\0" + size.to_bytes(4, "big")


def varint(number: int) -> bytes:
    """A protobuf varint; a negative number as its two's complement of 64 bits."""
    if 0 <= number < 128:
        return bytes((number,))
    number &= _UINT64
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


@lru_cache(maxsize=1024)  # answers to queries like those before have their sizes
def bytes_header(field: int, size: int) -> bytes:
    """Tag and length of a length-delimited field: bytes, a string or a message."""
    return bytes((field << 3 | 2,)) + varint(size)


def varint_field(field: int, number: int) -> bytes:
    """An integer or enum field; nothing for 0, the default."""
    return bytes((field << 3,)) + varint(number) if number else b""
