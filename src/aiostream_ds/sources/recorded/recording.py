"""Recordings: what a channel sent, with the times of arrival, as a file of one JSON object a line.

    {"recording":1,"path":"walk/10/1","started":1700000000000}             Unix ms
    {"t":0.0021,"schema":{"fields":[…]},"data":{"values":[[…],[…]]}}       seconds since `started`
    {"t":0.1043,"data":{"values":[[…],[…]]}}                               columns as before

Schema and data are as Grafana has them. A last line that was cut off is none.
"""

from collections.abc import Iterator
from itertools import islice
from typing import IO, Any, NamedTuple

import msgspec

from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Frame, FrameError
from aiostream_ds._frames.packet import Schema
from aiostream_ds.errors import ConfigError

__all__ = ["Packet", "Reader", "Recorder"]

VERSION = 1
"""Of the format; a reader takes no other."""


class _Head(msgspec.Struct):
    recording: int
    path: str
    started: int


class _Line(msgspec.Struct):
    t: float
    schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Payload(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


class _Data(msgspec.Struct):
    values: list[list[Any]] = []


class Packet(NamedTuple):
    """Rows that came together, `t` seconds after the recording was started."""

    t: float
    frame: Frame


class Recorder:
    """Writes what a viewer receives; keeps nothing but the schema in mind.

    `rows` and `packets` count what was written. Each packet is with the system when `add` returns.
    """

    def __init__(self, out: IO[bytes], path: str, started: int) -> None:
        self.rows = 0
        self.packets = 0
        self._out = out
        self._schema = b""
        self._write(_Head(VERSION, path, started))

    def add(self, payload: bytes, t: float) -> None:
        """One packet, `t` seconds after the start. Raises OSError when the disk is full."""
        parts = msgspec.json.decode(payload, type=_Payload)
        line = _Line(round(t, 6))
        if parts.data:
            line.data = parts.data
        if bytes(parts.schema) not in (b"", self._schema):
            self._schema = bytes(parts.schema)
            line.schema = parts.schema
        values = msgspec.json.decode(parts.data, type=_Data).values if parts.data else []
        rows = len(values[0]) if values else 0
        if rows or line.schema is not msgspec.UNSET:
            self._write(line)
            self.packets += 1
            self.rows += rows

    def _write(self, line: _Head | _Line) -> None:
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


class Reader:
    """Reads a recording, some packets at a time; to be closed. All of it blocks.

    `path` and `started` (Unix ms) are those of the recorded channel.

    Raises:
        ConfigError: there is no such file, or it is no recording.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._schema: Schema | None = None
        try:
            self._file = open(name, "rb")
        except OSError as error:
            raise ConfigError(f"file is {name!r}: {error.strerror}") from None
        self._lines = enumerate(self._file, 1)
        try:
            head = self._read_head()
        except BaseException:
            self._file.close()
            raise
        self.path = head.path
        self.started = head.started

    def _read_head(self) -> _Head:
        try:
            head = msgspec.json.decode(next(self._lines, (1, b""))[1], type=_Head)
        except (ValueError, OSError):
            text = f"file is {self._name!r}, which is no recording of `aiostream-ds record`"
            raise ConfigError(text) from None
        if head.recording != VERSION:
            text = f"file is {self._name!r} of version {head.recording}; allowed is {VERSION}"
            raise ConfigError(text)
        return head

    def close(self) -> None:
        """Gives the file back."""
        self._file.close()

    def read(self, most: int) -> list[Packet]:
        """The next packets with rows; none at the end. Raises ConfigError for a line that is
        none."""
        found: list[Packet] = []
        while not found:
            lines = list(islice(self._lines, most))
            if not lines:
                break
            found.extend(self._packets(lines))
        return found

    def _packets(self, lines: list[tuple[int, bytes]]) -> Iterator[Packet]:
        for number, text in lines:
            if not text.endswith(b"\n"):
                return
            try:
                line = msgspec.json.decode(text, type=_Line)
                if line.schema is not msgspec.UNSET:
                    body = bytes(line.schema)
                    self._schema = Schema(body, json.fingerprint(body))
                if line.data is not msgspec.UNSET:
                    frame = json.decode(b'{"data":%b}' % bytes(line.data), self._schema)
                    yield Packet(line.t, frame)
            except (ValueError, FrameError) as error:
                where = f"line {number} of {self._name!r}"
                raise ConfigError(f"{where} is no packet of a recording: {error}") from None
