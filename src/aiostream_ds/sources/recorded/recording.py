"""Recordings: a channel's packets and their times of arrival, as a file of JSON lines.

    {"recording":1,"path":"walk/10/1","started":1700000000000}             Unix ms
    {"t":0.0021,"schema":{"fields":[…]},"data":{"values":[[…],[…]]}}       seconds since `started`
    {"t":0.1043,"data":{"values":[[…],[…]]}}                               with the last schema

Schema and data are Grafana's JSON. A last line without a newline is ignored.
"""

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import IO, Any, NamedTuple

import msgspec

from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Frame, FrameError
from aiostream_ds._frames.packet import Schema
from aiostream_ds.errors import ConfigError, UpstreamError
from aiostream_ds.sources.regular_file import open_regular

__all__ = ["RecordedPacket", "RecordingReader", "Recorder"]

LINE_LIMIT = 1 << 26
"""Bytes of a line of a recording, which is one packet."""

VERSION = 1
"""The version of the format; the reader rejects any other."""


class _Head(msgspec.Struct):
    recording: int
    path: str
    started: int


class _Line(msgspec.Struct):
    t: float
    schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _ReceivedPacket(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()


class _Values(msgspec.Struct):
    values: list[list[Any]] = []


class RecordedPacket(NamedTuple):
    """The rows of one packet, `t` seconds after the start of the recording."""

    t: float
    frame: Frame


class Recorder:
    """Writes a recording of the packets that a viewer receives.

    `rows` and `packets` count what was written. `add` flushes each packet to the operating system.
    """

    def __init__(self, out: IO[bytes], path: str, started: int) -> None:
        self.rows = 0
        self.packets = 0
        self._out = out
        self._schema = b""
        self._write(_Head(VERSION, path, started))

    def add(self, payload: bytes, t: float) -> None:
        """Write a packet, `t` seconds after the start. Raises OSError, such as for a full disk."""
        parts = msgspec.json.decode(payload, type=_ReceivedPacket)
        line = _Line(round(t, 6))
        if parts.data:
            line.data = parts.data
        if bytes(parts.schema) not in (b"", self._schema):
            self._schema = bytes(parts.schema)
            line.schema = parts.schema
        values = msgspec.json.decode(parts.data, type=_Values).values if parts.data else []
        rows = len(values[0]) if values else 0
        if rows or line.schema is not msgspec.UNSET:
            self._write(line)
            self.packets += 1
            self.rows += rows

    def _write(self, line: _Head | _Line) -> None:
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


class RecordingReader:
    """Reads a recording. All methods block: call them in a thread. The caller closes it.

    `path` is the recorded channel, `started` the time of the start in Unix ms.

    Raises:
        ConfigError: the file does not exist, or is not a recording.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._schema: Schema | None = None
        try:
            self._file = os.fdopen(open_regular(name), "rb")
        except OSError as error:
            raise ConfigError(
                f"the recording {name!r} cannot be opened: {error.strerror}"
            ) from None
        except UpstreamError as error:
            raise ConfigError(f"the recording {name!r} cannot be read: {error.message}") from None
        self._lines = enumerate(iter(partial(self._file.readline, LINE_LIMIT), b""), 1)
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
            text = f"file must be a recording of `aiostream-ds record`, got {self._name!r}"
            raise ConfigError(text) from None
        if head.recording != VERSION:
            text = (
                f"file must be a recording of version {VERSION}, got {self._name!r} of version"
                f" {head.recording}"
            )
            raise ConfigError(text)
        return head

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, most: int) -> list[RecordedPacket]:
        """The next packets, an empty list at the end. Raises ConfigError for an invalid line."""
        found: list[RecordedPacket] = []
        while not found:
            lines = self._next_lines(most)
            if not lines:
                break
            found.extend(self._packets(lines))
        return found

    def _next_lines(self, most: int) -> list[tuple[int, bytes]]:
        """The next lines with their numbers: at most so many, and fewer if they are long."""
        lines, size = [], 0
        for line in islice(self._lines, most):
            lines.append(line)
            size += len(line[1])
            if size >= LINE_LIMIT:
                break
        return lines

    def _packets(self, lines: list[tuple[int, bytes]]) -> Iterator[RecordedPacket]:
        for number, text in lines:
            if not text.endswith(b"\n"):
                if len(text) < LINE_LIMIT:
                    return
                raise ConfigError(
                    f"line {number} of {self._name!r} must have less than {LINE_LIMIT:,} bytes"
                )
            try:
                line = msgspec.json.decode(text, type=_Line)
                if line.schema is not msgspec.UNSET:
                    body = bytes(line.schema)
                    self._schema = Schema(body, json.fingerprint(body))
                if line.data is not msgspec.UNSET:
                    frame = json.decode(b'{"data":%b}' % bytes(line.data), self._schema)
                    yield RecordedPacket(line.t, frame)
            except (ValueError, FrameError) as error:
                raise ConfigError(
                    f"line {number} of {self._name!r} must be a recorded packet: {error}"
                ) from None
