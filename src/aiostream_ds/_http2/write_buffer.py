"""What one connection writes: all of one turn of the loop leaves together.

Imports the standard library only.
"""

import asyncio
from typing import Any

__all__ = ["FLUSH_CHUNKS", "FLUSH_BYTES", "WriteBuffer"]

FLUSH_BYTES = 128 * 1024
"""Bytes after which a stream lets the loop turn, and after which written bytes leave at once. A
pump's batch, half as many, goes out in one piece."""

FLUSH_CHUNKS = 8
"""Written pieces that leave at once: when many channels tick together, the first waits for few."""


class WriteBuffer:
    """The transport as grpclib sees it: what one turn of the loop writes leaves together.

    `ready` is whether the host takes more now; who pauses writing, or ends it, says so here.
    """

    __slots__ = ("_ended", "_parts", "_scheduled", "_size", "_transport", "ready")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._size = 0
        self._scheduled = self._ended = False
        self.ready = True

    def write(self, data: bytes) -> None:
        """Keep `data` for the end of this turn; much, or many pieces, leave at once."""
        parts = self._parts
        parts.append(data)
        self._size += len(data)
        if self._size >= FLUSH_BYTES or len(parts) >= FLUSH_CHUNKS:
            self.flush()
        elif not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Hand everything to the transport now."""
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self.is_closing():
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def end(self) -> None:
        """Flush and write no more, but read on, so that the host can take everything and close.

        Closing at once would fail the host's own writes, and some hosts then read no more.
        """
        self.flush()
        if not self.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:  # TLS
                self._transport.close()
        self._ended, self.ready = True, False

    def close(self) -> None:
        """Flush, and close when the transport has sent its bytes."""
        self.flush()
        self.ready = False
        self._transport.close()

    def abort(self) -> None:
        """Close now; unsent bytes are lost."""
        self.ready = False
        self._transport.abort()

    def is_closing(self) -> bool:
        """True once nothing more can be written."""
        return self._ended or self._transport.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """What asyncio knows of the connection: "peername", "socket", "ssl_object"."""
        return self._transport.get_extra_info(name)
