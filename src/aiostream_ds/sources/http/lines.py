"""Splits a stream of bytes into lines, of a bounded length."""

__all__ = ["LineSplitter"]


class LineSplitter:
    """The lines of a stream of bytes, which arrives in chunks of any size.

    Args:
        limit: the maximum bytes of a line. A longer one is None in the result; its bytes are not
            kept.
        any_newline: whether CR alone ends a line too, as in Server-Sent Events; else it is LF or
            CRLF.
    """

    __slots__ = ("_after_cr", "_any_newline", "_is_too_long", "_limit", "_pending", "_size")

    def __init__(self, limit: int, *, any_newline: bool = False) -> None:
        self._limit = limit
        self._any_newline = any_newline
        self._after_cr = False  # an LF at the beginning of the next chunk ends no further line
        self._pending: list[bytes] = []  # the beginning of a line without its newline
        self._size = 0
        self._is_too_long = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that end in this chunk, without their newlines."""
        if self._any_newline:
            return self._feed_any(chunk)
        *ended, rest = chunk.split(b"\n")
        lines = self._complete(ended)
        self._keep(rest)
        return [line[:-1] if line is not None and line[-1:] == b"\r" else line for line in lines]

    def rest(self) -> list[bytes | None]:
        """The last line, if the stream has ended without a newline. Empty lines are left out."""
        line = self._take() if self._size else b""
        return [] if line == b"" else [line]

    def _feed_any(self, chunk: bytes) -> list[bytes | None]:
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        ended = chunk.splitlines()  # of bytes: at CR, LF and CRLF only
        rest = b"" if chunk[-1:] in b"\r\n" else ended.pop()
        self._after_cr = chunk[-1:] == b"\r"
        lines = self._complete(ended)
        self._keep(rest)
        return lines

    def _complete(self, ended: list[bytes]) -> list[bytes | None]:
        lines: list[bytes | None] = list(ended)
        if ended and self._size:
            self._keep(ended[0])
            lines[0] = self._take()
        limit = self._limit
        return [None if line is not None and len(line) > limit else line for line in lines]

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self._is_too_long = True
            self._pending.clear()
        elif part:
            self._pending.append(part)

    def _take(self) -> bytes | None:
        line = None if self._is_too_long else b"".join(self._pending)
        self._pending.clear()
        self._size, self._is_too_long = 0, False
        return line
