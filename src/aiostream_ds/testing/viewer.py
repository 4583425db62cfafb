"""A browser tab that is subscribed to one channel, with the rules and flaws of Grafana's frontend.

It uses the last schema for packets without one, and breaks as Grafana does on a packet with another
number of columns. The packets of an exact channel have no schema: it reads their rows with the
frame of the panel's query.
"""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._frames.packet import Schema
from aiostream_ds.rows import Cursor

__all__ = ["Refused", "Viewer"]

WAIT_TIMEOUT = 30.0
"""Seconds that a viewer waits for rows by default."""


class Refused(Exception):
    """The subscription or publication was refused; `status` is NOT_FOUND or PERMISSION_DENIED."""

    def __init__(self, status: str, path: str) -> None:
        super().__init__(f"{status}: {path!r}")
        self.status = status


class _CursorObject(msgspec.Struct):
    epoch: str
    last: int | str

    @property
    def cursor(self) -> Cursor[Any]:
        """The cursor; one of two numbers as a tuple, also if the rows have it as a text."""
        last: Any = self.last
        if isinstance(last, str):
            last = tuple(map(int, last.split("-"))) if last != "-1" else (-1, -1)
        return Cursor(self.epoch, last)


class _Message(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    cursor: _CursorObject | None = None


class Viewer:
    """One viewer of one channel, created by `Grafana.follow`.

    `rows` has all rows as dicts (times in Unix ms), `packets` the raw JSON, `fields` the columns of
    the last packet with rows. For an exact channel, `position` is the cursor of the last packet,
    two numbers as a tuple, and `rows` is empty without the `frame` of a query.
    """

    def __init__(
        self, path: str, leave: Callable[["Viewer"], None], frame: Frame | None = None
    ) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.packets: list[bytes] = []
        self.fields: tuple[Field, ...] = ()
        self.schema_changes = 0
        self.position: Cursor[Any] | None = None
        self._leave = leave
        self._schema = None if frame is None else _schema_of(frame)
        self._taken = 0
        self._read = 0
        self._more = anyio.Event()
        self.broken: str | None = None
        self.ended = False

    def leave(self) -> None:
        """Close the tab. Grafana notices at its next presence checks, 10 to 15 s later."""
        self._leave(self)

    async def next(self, timeout: float | None = WAIT_TIMEOUT) -> dict[str, Any]:  # noqa: ASYNC109
        """The next row; see `take`."""
        return (await self.take(1, timeout))[0]

    async def take(self, count: int, timeout: float | None = WAIT_TIMEOUT) -> list[dict[str, Any]]:  # noqa: ASYNC109
        """Wait for the next `count` rows. Safe to cancel: no row is lost.

        Raises:
            TimeoutError: the rows did not arrive within `timeout` seconds (None: no limit).
            ValueError: the panel is broken, see `broken`.
            anyio.EndOfStream: the stream method has returned.
        """
        await anyio.lowlevel.checkpoint()  # so that a loop over ready rows can be cancelled
        with anyio.move_on_after(timeout):
            while len(self.rows) < self._read + count:
                await self._wait()
        if len(self.rows) < self._read + count:
            found = len(self.rows) - self._read
            raise TimeoutError(f"{self.path!r}: {found} of {count} rows came within {timeout} s")
        rows = self.rows[self._read : self._read + count]
        self._read += count
        return rows

    async def message(self, timeout: float | None = WAIT_TIMEOUT) -> dict[str, Any]:  # noqa: ASYNC109
        """Wait for the next packet, decoded from JSON. The first one is the subscription's initial
        data. Raises as `take`.
        """
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(timeout):
            while len(self.packets) <= self._taken:
                await self._wait()
        if len(self.packets) <= self._taken:
            raise TimeoutError(f"{self.path!r}: no packet came within {timeout} s")
        self._taken += 1
        message: dict[str, Any] = msgspec.json.decode(self.packets[self._taken - 1])
        return message

    def forget(self) -> None:
        """Drop the rows that `take` has returned and all raw packets, to free memory."""
        del self.rows[: self._read]
        self._read = self._taken = 0
        self.packets.clear()

    def end(self) -> None:
        """The stream method returned."""
        self.ended = True
        self._wake()

    def push(self, payload: bytes) -> None:
        """A packet arrived. One that breaks the panel sets `broken`."""
        self.packets.append(payload)
        self.ended = False
        parts = msgspec.json.decode(payload, type=_Message)
        if parts.schema:
            body = bytes(parts.schema)
            fingerprint = json.fingerprint(body)
            if self._schema is None or self._schema.fingerprint != fingerprint:
                self.schema_changes += 1
                self._schema = Schema(body, fingerprint)
        if parts.cursor is not None:
            self.position = parts.cursor.cursor
        if not parts.data or (parts.cursor is not None and self._schema is None):
            self._wake()
            return
        try:
            frame = json.decode(payload, self._schema)
        except ValueError as error:
            self.broken = f"push message mismatch: {error}"
            self._wake()
            return
        self.fields = frame.fields
        names = [field.name for field in frame.fields]
        columns = [field.values for field in frame.fields]
        self.rows.extend(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        self._wake()

    async def _wait(self) -> None:
        if self.broken is not None:
            raise ValueError(self.broken)
        if self.ended:
            raise anyio.EndOfStream(f"the stream {self.path!r} has ended")
        await self._more.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()


def _schema_of(frame: Frame) -> Schema:
    body = json.schema(frame)
    return Schema(body, json.fingerprint(body))
