"""Strings with HPACK's Huffman code (RFC 7541, 5.2 and appendix B)."""

from itertools import groupby

__all__ = ["decode_huffman"]

# The bits of each symbol's code, as digits to the base 36: of 0 to 255, and the end of the string.
_SIZES = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad67777777777777777777777878djde6"
    "f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmolmnnllmlnmnnkmmmnmmn"
    "qqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
_END = 256
_WINDOW = 12  # bits that are looked up at once: two digits or letters
_MASK = (1 << _WINDOW) - 1
_STEP = 8  # bytes that are decoded at a time: most texts at once, and no long integer
_LONGEST_PADDING = 7


def _codes() -> list[tuple[int, int, list[int]]]:
    """By the number of bits: the first code, and the symbols of the codes from it on. The codes of
    one size count up, in the order of their symbols, from twice what follows those one bit
    shorter."""
    sizes = [int(digit, 36) for digit in _SIZES]
    found, code, before = [], 0, 0
    for size, group in groupby(sorted(range(_END + 1), key=sizes.__getitem__), sizes.__getitem__):
        symbols = [*group]
        code <<= size - before
        found.append((size, code, symbols))
        code, before = code + len(symbols), size
    return found


def _short_codes() -> list[tuple[int, int]]:
    """By the next eight bits: the symbol and its number of bits; 0 bits: its code is longer."""
    found = [(0, 0)] * 256
    for size, first, symbols in _codes():
        if size <= 8:
            for code, symbol in enumerate(symbols, first):
                start = code << (8 - size)
                found[start : start + (1 << (8 - size))] = [(symbol, size)] * (1 << (8 - size))
    return found


_SHORT = _short_codes()
_LONG = [each for each in _codes() if each[0] > 8]


class _Windows(dict[int, tuple[bytes, int]]):
    """By the next bits: the text of the short codes that are whole in them, and its number of bits;
    0 bits: a longer code. Made when they are needed: few of the 4,096 are."""

    def __missing__(self, window: int) -> tuple[bytes, int]:
        text, used = b"", 0
        while True:
            symbol, size = _SHORT[(window << 8) >> _WINDOW - used & 0xFF]
            if not size or used + size > _WINDOW:
                break
            text += bytes((symbol,))
            used += size
        self[window] = text, used
        return text, used


_WINDOWS = _Windows()


def decode_huffman(data: bytes) -> bytes:
    """The string with this code. Raises ValueError for a code that is not complete or that has the
    end of the string in it, and for padding that is too long or has zeros."""
    text = bytearray()
    bits = held = 0  # what is not decoded is in the lowest bits; their number
    for start in range(0, len(data), _STEP):
        part = data[start : start + _STEP]
        bits = bits << 8 * len(part) | int.from_bytes(part, "big")
        held += 8 * len(part)
        while held >= _WINDOW:
            found, size = _WINDOWS[bits >> held - _WINDOW & _MASK]
            if not size:
                symbol, size = _long_code(bits & (1 << held) - 1, held)
                if not size:
                    break  # the rest of the code is in the next bytes
                found = bytes((symbol,))
            held -= size
            text += found
        bits &= (1 << held) - 1
    while held:
        # padded with ones, as no short code consists of them
        symbol, size = _SHORT[(bits << 8 | 0xFF) >> held & 0xFF]
        if not size:
            symbol, size = _long_code(bits, held)
        if not 0 < size <= held:
            break
        held -= size
        bits &= (1 << held) - 1
        text.append(symbol)
    if held > _LONGEST_PADDING or bits != (1 << held) - 1:
        raise ValueError("the Huffman code of a string is not complete")
    return bytes(text)


def _long_code(bits: int, held: int) -> tuple[int, int]:
    """The symbol that these bits begin with, and its number of bits; 0 bits: more are needed."""
    for size, first, symbols in _LONG:
        if size > held:
            break
        place = (bits >> held - size) - first
        if place < len(symbols):
            if symbols[place] == _END:
                raise ValueError("the end of a string must not be in its Huffman code")
            return symbols[place], size
    return 0, 0
