"""Messages of brokers, sockets and HTTP as rows. No message raises: bad ones are counted."""

import time
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings, series_labels
from aiostream_ds.sources.decoding.decoding_status import DecodingStatus
from aiostream_ds.sources.decoding.event_times import LATEST_MS, read_time
from aiostream_ds.sources.decoding.formats import (
    Document,
    FormatContext,
    decode,
    format_of_content_type,
)
from aiostream_ds.sources.decoding.message_errors import MessageErrors
from aiostream_ds.sources.decoding.message_records import ROWS_LIMIT, RecordSelector
from aiostream_ds.sources.decoding.message_rows import LABEL_LIMIT, TEXT_LIMIT, RowMaker
from aiostream_ds.sources.decoding.plain_values import plain
from aiostream_ds.sources.decoding.text_cells import text_cell

__all__ = ["MessageDecoder"]

_NO_COLUMNS: Mapping[str, Any] = {}

_decode_flat = msgspec.json.Decoder(dict[str, float | str | bool | None]).decode
"""An object without nested values, with all numbers as floats."""

_MS = 1e11, LATEST_MS
"""Between these, a number is a valid time in milliseconds, if no other unit is set."""


_EXACT = 2**53
"""Below it, a float is the integer of the message."""


class MessageDecoder:
    """Decodes the messages of a source, or of one run of a stream.

        decoder = MessageDecoder(self.settings, self.errors)
        for row in decoder.rows(payload, {"topic": topic}, address=topic): ...

    Not thread-safe; one thread at a time may decode.

    Args:
        errors: where bad messages are counted; several decoders of a data source share one.
        series: whether the labels of the settings make series. In a stream with a cursor they do
            not: its labels and tags are columns as any other.

    Raises:
        ConfigError: a path of the settings is not a JSONPath, or a label cannot be one.
    """

    __slots__ = (
        "_bad",
        "_context",
        "_fast_limit",
        "_good",
        "_has_floats",
        "_has_ms",
        "_last_bad",
        "_maker",
        "_selector",
        "_settings",
        "_status",
        "errors",
        "labels",
    )

    def __init__(
        self,
        settings: DecodingSettings,
        errors: MessageErrors | None = None,
        *,
        series: bool = True,
    ) -> None:
        self._settings = settings
        self.errors = MessageErrors() if errors is None else errors
        labels = series_labels(settings)
        self.labels: tuple[str, ...] = labels if series else ()
        """The columns that identify a series."""
        self._maker = RowMaker(settings, self.labels)
        self._context = FormatContext(settings, keeps_tags="tags" in self.labels)
        self._selector = RecordSelector(settings)
        is_fast = (
            settings.format in ("auto", "json")
            and settings.others
            and not settings.columns
            and not self._selector.has_paths
        )
        self._fast_limit = min(settings.max_message, TEXT_LIMIT) if is_fast else 0
        self._has_ms = settings.time_unit in ("auto", "ms")
        self._has_floats = settings.time_unit != "ns"  # as integers they are more exact
        self._good = self._bad = 0
        self._last_bad = ("", "")
        self._status = DecodingStatus()

    # -- messages ------------------------------------------------------------------------------

    def rows(
        self,
        payload: bytes | str | Any,
        extra: Mapping[str, Any] = _NO_COLUMNS,
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
        if isinstance(payload, str):
            payload = payload.encode("utf-8", "surrogatepass")
        if type(payload) is bytes and payload[:1] == b"{" and len(payload) <= self._fast_limit:
            row = self._flat_row(payload, extra, received)
            if row is not None:
                self._good += 1
                return [row]
        try:
            document, size = self._document(payload, content_type)
        except BadRecord as error:
            self.add_bad(address, str(error), payload)
            return []
        return self._rows(document, size, extra, received, address, payload)

    def field_rows(
        self,
        fields: Mapping[bytes, bytes] | Mapping[str, str],
        extra: Mapping[str, Any] = _NO_COLUMNS,
        received: int | None = None,
        *,
        address: str = "",
    ) -> list[dict[str, Any]]:
        """As `rows`, for a message of fields with texts, such as an entry of a Redis stream: a text
        that spells a number is one."""
        if received is not None and self._fast_limit:
            row = self._flat_fields(fields, extra, received)
            if row is not None:
                self._good += 1
                return [row]
        try:
            values: dict[str, Any] = plain(fields)
        except BadRecord as error:
            self.add_bad(address, str(error), fields)
            return []
        kept = {self._settings.time, *self._settings.columns, *self.labels}
        for name, value in values.items():
            if isinstance(value, str) and name not in kept:
                values[name] = text_cell(value)
        return self.rows(values, extra, received, address=address)

    def _flat_fields(
        self, fields: Mapping[Any, Any], extra: Mapping[str, Any], received: int
    ) -> dict[str, Any] | None:
        """The row of the common case, fields of bytes without a time; None: another case."""
        row, size = {"time": received, **extra}, 0
        try:
            names = tuple([name.decode() for name in fields])
            for name, value in zip(names, fields.values(), strict=True):
                size += len(value)
                row[name] = text_cell(value.decode())
        except (AttributeError, UnicodeDecodeError):  # text, or bytes that are not UTF-8
            return None
        if len(row) != 1 + len(extra) + len(names) or size > self._fast_limit:
            return None
        shape = self._maker.shape(names)
        return row if shape.is_whole and shape.time is None and not shape.labels else None

    def _flat_row(
        self, payload: bytes, extra: Mapping[str, Any], received: int
    ) -> dict[str, Any] | None:
        """The row of the common case, a JSON object without nested values; None: another case."""
        try:
            values = _decode_flat(payload)
        except ValueError:
            return None
        shape = self._maker.shape(tuple(values))
        if not shape.is_whole:
            return None
        for name in shape.labels:
            label: Any = values[name]
            if label.__class__ is not str or len(label) > LABEL_LIMIT:
                return None
        moment: Any = None if shape.time is None else values.pop(shape.time)
        if moment is None:
            moment = received
        elif self._has_ms and moment.__class__ is float and _MS[0] <= moment < _MS[1]:
            moment = round(moment)
        elif moment.__class__ is str or (self._has_floats and abs(moment) < _EXACT):
            try:
                moment = read_time(moment, self._settings)
            except BadRecord:
                return None
        else:
            return None
        row = {"time": moment, **extra, **values}
        return row if len(row) == 1 + len(extra) + len(values) else None

    def _document(self, payload: Any, content_type: str) -> tuple[Document, int]:
        """What a message contains, and its size. Raises BadRecord."""
        if not isinstance(payload, bytes):
            if not isinstance(payload, bytearray | memoryview):
                return plain(payload), TEXT_LIMIT + 1
            payload = bytes(payload)
        limit = self._settings.max_message
        if len(payload) > limit:
            raise BadRecord(
                f"expected at most {limit:,} bytes, which the setting maxMessage allows, got"
                f" {len(payload):,}"
            )
        if not payload.strip():
            return None, 0
        kind = self._settings.format
        if kind == "auto" and content_type:
            kind = format_of_content_type(content_type) or "auto"
        return decode(payload, kind, self._context), len(payload)

    def _rows(
        self,
        document: Document,
        size: int,
        extra: Mapping[str, Any],
        received: int,
        address: str,
        payload: Any,
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        maker, bad = self._maker, self._bad
        for number, record in enumerate(self._selector.records(document)):
            if number >= ROWS_LIMIT:
                reason = f"expected at most {ROWS_LIMIT:,} rows in a message, got more"
                self.add_bad(address, reason, payload)
                break
            try:
                if isinstance(record, BadRecord):
                    raise record
                row = maker.row(record, extra, received)
            except BadRecord as error:
                self.add_bad(address, str(error), payload)
                continue
            if size > TEXT_LIMIT:
                maker.limit_texts(row)
            found.append(row)
        if maker.left_out:
            self.errors.add_values(maker.left_out)
            maker.left_out = 0
        self._good += len(found)
        if not found and self._bad == bad and size:
            self.errors.add_empty(address, payload)
            if not self._good:  # panels would be empty in silence
                self._bad += 1
                self._last_bad = address, "no row in it"
        return found

    # -- what was left out ---------------------------------------------------------------------

    def add_bad(self, address: str, reason: str, payload: Any) -> None:
        """Count a bad message, or row of one; for a source that finds more reasons."""
        self._bad += 1
        self._last_bad = address, reason
        self.errors.add(address, reason, payload)

    def status(self) -> Status | None:
        """The stream's new status, to be yielded; None as long as it is the same.

        After a bad message it is a warning, which ends with the first call after 30 seconds without
        one. Call it after each message, in the event loop.
        """
        if not self._bad:
            return None
        return self._status.change(self._good, self._bad, self._last_bad, anyio.current_time())
