"""Messages of brokers, sockets and HTTP as rows. No message raises: bad ones are counted."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import anyio
import msgspec

from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import Notice
from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings, Format
from aiostream_ds.sources.decoding.event_times import guess_time, read_time
from aiostream_ds.sources.decoding.fixed_values import FIXED
from aiostream_ds.sources.decoding.formats import decode, decode_object, format_of_content_type
from aiostream_ds.sources.decoding.json_paths import JsonPath
from aiostream_ds.sources.decoding.message_errors import MessageErrors
from aiostream_ds.sources.decoding.plain_values import COLUMNS_LIMIT, NAME_LIMIT, columns_of, plain
from aiostream_ds.sources.decoding.text_cells import text_cell

__all__ = ["MessageDecoder"]

ROWS_LIMIT = 10_000
"""Maximum number of rows of one message, as many as a subscriber's queue has; further ones are left
out and counted."""

STATUS_INTERVAL = 10.0
"""Minimum seconds between two changes of the status of a stream with bad messages."""

STATUS_SHOWN = 30.0
"""Seconds without a bad message after which a stream is healthy again."""

TEXT_LIMIT = 1_000_000
"""Maximum characters of the texts of one row; values beyond are left out and counted."""

_SHAPES = 1_000  # the cache of shapes is cleared then

_NO_LABELS: Mapping[str, Any] = {}
_FLAT = frozenset({float, str, bool, type(None)})


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """Objects with the same keys: which of them has the time, and the columns of the others.

    A key without a column has the name None.
    """

    time: str | None
    names: tuple[str | None, ...]
    left_out: int


class MessageDecoder:
    """Decodes the messages of a source, or of one run of a stream.

        decoder = MessageDecoder(self.settings, self.errors)
        for row in decoder.rows(payload, {"topic": topic}, address=topic): ...

    Not thread-safe; one thread at a time may decode.

    Args:
        errors: where bad messages are counted; several decoders of a data source share one.

    Raises:
        ConfigError: a path of the settings is not a JSONPath, or a label is not a name.
    """

    def __init__(self, settings: DecodingSettings, errors: MessageErrors | None = None) -> None:
        self.settings = settings
        self.errors = MessageErrors() if errors is None else errors
        self.labels: tuple[str, ...] = tuple(dict.fromkeys(settings.labels))
        """The columns that identify a series."""
        if "time" in self.labels or "" in self.labels:
            raise ConfigError(
                f"labels must be names of columns other than 'time', got {settings.labels!r}"
            )
        self._format: Format = settings.format
        self._fixed = {name: FIXED[kind] for name, kind in settings.columns.items()}
        self._rows_path = JsonPath("rowsPath", settings.rows_path) if settings.rows_path else None
        self._paths = {
            name: JsonPath(f"paths.{name}", path) for name, path in settings.paths.items()
        }
        self._is_plain = not (self._fixed or self._paths or self._rows_path or not settings.others)
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._good = self._bad = 0
        self._last_bad = ("", "")
        self._status = _DecodingStatus()

    # -- messages ------------------------------------------------------------------------------

    def rows(
        self,
        payload: bytes | str | Any,
        extra: Mapping[str, Any] = _NO_LABELS,
        received: int | None = None,
        *,
        address: str = "",
        content_type: str = "",
    ) -> list[dict[str, Any]]:
        """The rows of a message. A bad message has none, and is counted; nothing is raised.

        A row has the column `time`, in Unix ms: the message's own time, else `received`, else the
        current time; then the columns of `extra`, then those of the message. A column of the
        message with a name of these gets a trailing `_`.

        Args:
            payload: bytes or text in the format of the settings, or an object that is decoded.
            address: where the message comes from, such as its topic: errors are kept by it.
            content_type: the media type, if the transport has one; used with the format `auto`.
        """
        if received is None:
            received = time.time_ns() // 1_000_000
        try:
            if payload.__class__ is bytes and payload[:1] == b"{" and self._is_plain:
                if len(payload) <= self.settings.max_message and self._format in ("auto", "json"):
                    row = self._fast_row(payload, extra, received)
                    if row is not None:
                        self._good += 1
                        return [row]
            document = self._document(payload, content_type)
            found = self._rows(document, extra, received, address, payload)
        except BadRecord as error:
            self._add_bad(address, str(error), payload)
            return []
        self._good += len(found)
        return found

    def field_rows(
        self,
        fields: Mapping[bytes, bytes] | Mapping[str, str],
        extra: Mapping[str, Any] = _NO_LABELS,
        received: int | None = None,
        *,
        address: str = "",
    ) -> list[dict[str, Any]]:
        """As `rows`, for a message that has fields with texts, as an entry of a Redis stream: a
        text that spells a number is one."""
        try:
            values: Any = plain(fields)
        except BadRecord as error:
            self._add_bad(address, str(error), fields)
            return []
        kept = {self.settings.time, *self.settings.columns, *self.settings.labels}
        cells = {
            name: text_cell(value) if isinstance(value, str) and name not in kept else value
            for name, value in values.items()
        }
        return self.rows(cells, extra, received, address=address)

    def _document(self, payload: Any, content_type: str) -> Any:
        if isinstance(payload, str):
            payload = payload.encode("utf-8", "surrogatepass")
        elif isinstance(payload, bytearray | memoryview):
            payload = bytes(payload)
        elif not isinstance(payload, bytes):
            return decode_object(payload)
        limit = self.settings.max_message
        if len(payload) > limit:
            raise BadRecord(
                f"expected at most {limit:,} bytes, got {len(payload):,}; the setting maxMessage"
                " has the limit"
            )
        if not payload.strip():
            return None
        kind = self._format
        if kind == "auto" and content_type:
            kind = format_of_content_type(content_type) or "auto"
        return decode(payload, kind, self.settings)

    def _rows(
        self, document: Any, extra: Mapping[str, Any], received: int, address: str, payload: Any
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for record in self._records(document):
            if isinstance(record, BadRecord):
                self._add_bad(address, str(record), payload)
                continue
            if len(found) >= ROWS_LIMIT:
                self._add_bad(
                    address, f"expected at most {ROWS_LIMIT:,} rows in a message", payload
                )
                break
            try:
                found.append(self._row(record, extra, received))
            except BadRecord as error:
                self._add_bad(address, str(error), payload)
        if len(payload) > TEXT_LIMIT if isinstance(payload, bytes | str) else True:
            for row in found:
                self._limit_texts(row)
        return found

    # -- records: the objects of a message -----------------------------------------------------

    def _records(self, document: Any) -> Iterator[Any]:
        """The objects of a message, each a dict of its own or a BadRecord."""
        if isinstance(document, Iterator):
            for part in document:
                if isinstance(part, BadRecord):
                    yield part
                else:
                    yield from self._selected(part)
        elif document is not None:
            yield from self._selected(document)

    def _selected(self, document: Any) -> Iterator[Any]:
        try:
            outer = self._outer(document)
            if self._rows_path is None:
                chosen = [document]
            else:
                chosen = self._rows_path.values(document, ROWS_LIMIT + 1)
        except BadRecord as error:
            yield error
            return
        for each in chosen:
            for record in self._objects(each):
                if isinstance(record, dict):
                    yield {**record, **outer} if outer else record
                else:
                    yield record

    def _outer(self, document: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, path in self._paths.items():
            values = path.values(document, 1)
            if values:
                value = values[0]
                if isinstance(value, str):
                    value = value[:_OUTER]
                found[name] = value if not isinstance(value, dict | list) else None
        return found

    def _objects(self, value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield dict(value) if self._rows_path is not None else value
        elif isinstance(value, list):
            yield from self._elements(value)
        elif isinstance(value, str):
            yield {"text": value}
        elif value is not None:
            yield {"value": value}

    def _elements(self, values: list[Any]) -> Iterator[Any]:
        """An array of objects is a row for each; one of arrays, too; else the array is a row."""
        if not any(isinstance(each, dict | list) for each in values):
            if values:
                yield self._named(values)
            return
        for each in values:
            if isinstance(each, dict):
                yield dict(each) if self._rows_path is not None else each
            elif isinstance(each, list):
                yield self._named(each)
            elif each is not None:
                yield BadRecord("expected objects or arrays in an array, got also other values")

    def _named(self, values: list[Any]) -> Any:
        names: Iterable[str] = self.settings.names
        if names and len(self.settings.names) != len(values):
            return BadRecord(
                f"expected {len(self.settings.names)} values as the setting names has, got"
                f" {len(values)}"
            )
        return dict(zip(names or map(str, range(1, len(values) + 1)), values, strict=True))

    # -- rows ----------------------------------------------------------------------------------

    def _fast_row(
        self, payload: bytes, extra: Mapping[str, Any], received: int
    ) -> dict[str, Any] | None:
        """The row of the common case, a JSON object without nested values; None: another case."""
        try:
            values = msgspec.json.decode(payload)
        except (ValueError, RecursionError):
            return None
        return self._flat_row(values, extra, received)

    def _flat_row(
        self, values: dict[str, Any], extra: Mapping[str, Any], received: int
    ) -> dict[str, Any] | None:
        keys = tuple(values)
        shape = self._shapes.get(keys)
        if shape is None:
            shape = self._add_shape(keys)
        if shape.left_out:
            return None
        row: dict[str, Any] = dict(zip(shape.names, values.values(), strict=True))  # type: ignore[arg-type]
        moment = None
        if shape.time is not None:
            moment = row.pop(shape.time)
        for name, value in row.items():
            kind = type(value)
            if kind is int:
                try:
                    row[name] = float(value)
                except OverflowError:
                    raise _too_large(name) from None
            elif kind not in _FLAT:
                return None
        if not row:
            return None
        if extra and not row.keys().isdisjoint(extra):
            return None
        return {
            "time": received if moment is None else read_time(moment, self.settings),
            **extra,
            **row,
        }

    def _add_shape(self, keys: tuple[str, ...]) -> _Shape:
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        settings = self.settings
        time = settings.time if settings.time in keys else guess_time(keys, settings)
        names: list[str | None] = []
        for key in keys:
            name = key + "_" if key == "time" and key != time else key
            names.append(name if len(name) <= NAME_LIMIT else None)
        left_out = names.count(None) + max(0, len(names) - COLUMNS_LIMIT)
        if len(set(names)) < len(names):
            left_out += 1
        shape = self._shapes[keys] = _Shape(time, tuple(names), left_out)
        return shape

    def _row(
        self, values: dict[str, Any], extra: Mapping[str, Any], received: int
    ) -> dict[str, Any]:
        """The row of any object. Raises BadRecord."""
        if any(type(value) is dict for value in values.values()):
            values = columns_of(values)
        settings = self.settings
        key = settings.time if settings.time in values else guess_time(values, settings)
        moment = None if key is None else values.get(key)
        row: dict[str, Any] = {
            "time": received if moment is None else read_time(moment, settings),
            **extra,
        }
        reserved = len(row)
        left_out = 0
        for name, read in self._fixed.items():
            value = values.get(name)
            row[self._own(name, row)] = found = read(value)
            left_out += found is None and value is not None and value != ""
        if settings.others:
            for name, value in values.items():
                if name == key or name in self._fixed:
                    continue
                if len(row) - reserved >= COLUMNS_LIMIT or len(name) > NAME_LIMIT:
                    left_out += 1
                    continue
                row[self._own(name, row)] = _number(name, value)
        else:
            for name in self.labels:
                if name not in row and name in values:
                    row[name] = values[name]
        if left_out:
            self.errors.add_values(left_out)
        if len(row) == reserved:
            raise BadRecord("expected at least one value, got none")
        return row

    @staticmethod
    def _own(name: str, row: Mapping[str, Any]) -> str:
        """The name of a column of the message: another one than those that exist."""
        while name in row:
            name += "_"
        return name

    def _limit_texts(self, row: dict[str, Any]) -> None:
        """Leave out the values beyond `TEXT_LIMIT`, so that a row does not exceed what is sent."""
        size = left_out = 0
        for name, value in row.items():
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, dict | list):
                size += len(msgspec.json.encode(value))
            if size > TEXT_LIMIT and isinstance(value, str | dict | list):
                row[name] = None
                left_out += 1
        if left_out:
            self.errors.add_values(left_out)

    # -- what was left out ---------------------------------------------------------------------

    def _add_bad(self, address: str, reason: str, payload: Any) -> None:
        self._bad += 1
        self._last_bad = address, reason
        self.errors.add(address, reason, payload)

    def status(self) -> Status | None:
        """The stream's new status, to be yielded; None as long as it is the same.

        With a bad message it is a warning, which ends with the first call after 30 seconds without
        one. Call it after each message, in the event loop.
        """
        if not self._bad and not self._status.is_shown:
            return None
        return self._status.change(self._good, self._bad, self._last_bad, anyio.current_time())

    def notice(self) -> Notice | None:
        """What all decoders with these `errors` left out, for a history's notices."""
        return self.errors.notice()

    def health_text(self) -> str:
        """What all decoders with these `errors` left out, for "Save & test"; empty if nothing."""
        return self.errors.text()

    def details(self) -> dict[str, Any]:
        """The same as numbers, for the details of "Save & test"."""
        return self.errors.details()


_OUTER = 1_000
"""Characters of a value that each row of a message gets."""


def _too_large(name: str) -> BadRecord:
    return BadRecord(f"the number in {name!r} is too large for a float")


def _number(name: str, value: Any) -> Any:
    if type(value) is not int:
        return value
    try:
        return float(value)
    except OverflowError:
        raise _too_large(name) from None


class _DecodingStatus:
    """The status of a stream with bad messages."""

    __slots__ = ("_bad", "_bad_at", "_changed_at", "is_shown")

    def __init__(self) -> None:
        self.is_shown = False
        self._bad = 0
        self._bad_at = self._changed_at = 0.0

    def change(self, good: int, bad: int, last: tuple[str, str], now: float) -> Status | None:
        """The new status, or None."""
        if bad > self._bad:
            self._bad, self._bad_at = bad, now
            if self.is_shown and now - self._changed_at < STATUS_INTERVAL:
                return None
            self.is_shown, self._changed_at = True, now
            address, reason = last
            where = f" of {address}" if address else ""
            return Status(
                "warning", f"{bad:,} of {bad + good:,} rows left out; the last{where}: {reason}"
            )
        if self.is_shown and now - self._bad_at >= STATUS_SHOWN:
            self.is_shown = False
            return Status()
        return None
