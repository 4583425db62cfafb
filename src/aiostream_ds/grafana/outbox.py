"""What one connection writes: all of one turn of the loop leaves together.

Imports the standard library only.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

__all__ = ["TURN", "Outbox"]

TURN = 64 * 1024
"""Bytes after which a stream lets the loop turn, and after which written bytes leave at once."""

_log = logging.getLogger("aiostream_ds.grafana")


class Outbox:
    """The transport as grpclib sees it: what one turn of the loop writes leaves together."""

    __slots__ = ("_callbacks", "_ended", "_parts", "_scheduled", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []
        self._size = 0
        self._callbacks: list[Callable[[], None]] = []
        self._scheduled = self._ended = False

    def write(self, data: bytes) -> None:
        """Keep `data` for the end of this turn; 64 KiB leave at once."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= TURN:
            self.flush()
        elif not self._scheduled:
            self._schedule()

    def at_turns_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called before the bytes of this turn leave; it may write."""
        self._callbacks.append(callback)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._flush_later)

    def _flush_later(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # one stream's failure must not hold up the connection's bytes
                _log.exception("a stream could not write")
        self._scheduled = False
        if self._callbacks:  # asked for meanwhile: their turn is the next one
            self._schedule()
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
        self._ended = True

    def close(self) -> None:
        """Flush, and close when the transport has sent its bytes."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close now; unsent bytes are lost."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """True once nothing more can be written."""
        return self._ended or self._transport.is_closing()

    def get_extra_info(self, name: str) -> Any:
        """What asyncio knows of the connection: "peername", "socket", "ssl_object"."""
        return self._transport.get_extra_info(name)
