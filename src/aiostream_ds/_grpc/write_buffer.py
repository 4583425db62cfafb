"""The write buffer of one connection: one system call for everything that is written in one
iteration of the event loop.
"""

import asyncio
import sys
from typing import Any

__all__ = ["COPIED_BYTES", "FLUSH_BYTES", "FLUSH_CHUNKS", "WriteBuffer"]

FLUSH_BYTES = 256 * 1024
"""Buffered bytes at which the buffer is flushed at once, and after which a stream that writes
yields to the event loop. A batch of rows is half as large, so it is written whole."""

FLUSH_CHUNKS = 8
"""Buffered writes at which the buffer is flushed at once: when many channels emit in the same
iteration, the first one waits for few others."""

COPIED_BYTES = 32 * 1024
"""Below this size, buffered writes are joined by a copy, faster than a system call with several
buffers."""

_WRITELINES_PAUSES = not (
    (3, 12) <= sys.version_info < (3, 12, 9) or (3, 13) <= sys.version_info < (3, 13, 2)
)
"""Whether asyncio pauses the writer of a slow host after `writelines`, too: CVE-2024-12254."""


class WriteBuffer:
    """Buffers writes to a transport until the end of the current iteration of
    the event loop, `FLUSH_BYTES` or `FLUSH_CHUNKS`."""

    __slots__ = (
        "_chunks",
        "_ended",
        "_flush_scheduled",
        "_loop",
        "_size",
        "_transport",
        "_writes",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._chunks: list[bytes | memoryview] = []
        self._size = self._writes = 0
        self._flush_scheduled = self._ended = False
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Buffer `data`; flush when the buffer is full."""
        self._chunks.append(data)
        self._size = size = self._size + len(data)
        self._writes = writes = self._writes + 1
        if size >= FLUSH_BYTES or writes >= FLUSH_CHUNKS:
            self.flush()
        elif not self._flush_scheduled:
            self._schedule_flush()

    def write_parts(self, parts: list[bytes | memoryview], size: int) -> None:
        """The same for `size` bytes in parts, which are not copied."""
        self._chunks += parts
        self._size += size
        self._writes += 1
        if self._size >= FLUSH_BYTES or self._writes >= FLUSH_CHUNKS:
            self.flush()
        elif not self._flush_scheduled:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        self._flush_scheduled = True
        self._loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write everything that is buffered to the transport."""
        chunks, size = self._chunks, self._size
        if not chunks:
            return
        self._chunks, self._size, self._writes = [], 0, 0
        if self.is_closing():
            return
        if len(chunks) == 1:
            self._transport.write(chunks[0])
        elif size >= COPIED_BYTES and _WRITELINES_PAUSES:
            self._transport.writelines(chunks)
        else:
            self._transport.write(b"".join(chunks))

    @property
    def unsent(self) -> int:
        """Bytes that are buffered here and in the transport."""
        return self._size + self._transport.get_write_buffer_size()

    def end(self) -> None:
        """Flush and close the write side. Reading goes on, so that the host can take everything
        and close the connection itself: closing at once would make the host's own writes fail,
        and some hosts stop reading then.
        """
        self.flush()
        if not self.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:  # TLS
                self._transport.close()
        self._ended = True

    def close(self) -> None:
        """Flush, and close the transport once its bytes are sent."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the transport at once; unsent bytes are lost."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """True once nothing more can be written."""
        return self._ended or self._transport.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """The transport's: "peername", "socket", "ssl_object"."""
        return self._transport.get_extra_info(name)
