"""A body as rows, with the reason for each row that is left out."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import series_labels
from aiostream_ds.sources.decoding.formats import Document, FormatContext, decode, json_lines
from aiostream_ds.sources.decoding.message_records import RecordSelector
from aiostream_ds.sources.decoding.message_rows import TEXT_LIMIT, RowMaker
from aiostream_ds.sources.decoding.plain_values import plain
from aiostream_ds.sources.push.arrow_stream import arrow_records
from aiostream_ds.sources.push.otlp_metrics import is_export, metric_records
from aiostream_ds.sources.push.otlp_protobuf import export_of_protobuf
from aiostream_ds.sources.push.push_body import PushBody
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.stores import CURSOR_COLUMN

__all__ = ["PUSH_ROWS", "SERIES_LABELS", "BodyDecoder", "DecodedBody", "RowRefusal"]

PUSH_ROWS = 20_000
"""Maximum number of rows of one body, with the bad ones."""

REFUSED_SHOWN = 1_000
"""Bad rows whose reason an answer has; further ones are only counted."""

SERIES_LABELS = ("measurement", "tags")
"""The labels without the setting `labels`: of line protocol, of OTLP (which has no measurement),
and of JSON with an object `tags`."""

_OTHER_SIGNALS = frozenset({"resourceSpans", "resourceLogs", "resourceProfiles"})

_SIMPLE = frozenset({str, int, float, bool, type(None)})

_RESERVED = {CURSOR_COLUMN: 0}  # a column of this name gets a trailing _


class RowRefusal(Struct, frozen=True):
    """Why a row was not taken."""

    row: int
    """Its index in the body, from 0, among all rows."""
    reason: str


class DecodedBody(Struct):
    """What a body contains."""

    rows: list[dict[str, Any]]
    """With the column `time`, in Unix ms."""
    bad: int = 0
    """The number of rows that are not taken."""
    refused: list[RowRefusal] = []
    """The first ones of them."""
    values_left_out: int = 0
    is_otlp: bool = False

    def refuse(self, row: int, reason: str) -> None:
        """Count a bad row."""
        self.bad += 1
        if len(self.refused) < REFUSED_SHOWN:
            self.refused.append(RowRefusal(row, reason))


class BodyDecoder:
    """Decodes the bodies of one data source. Thread-safe, if one thread at a time uses it.

    Raises:
        ConfigError: a path of the settings is not a JSONPath, or a label cannot be one.
    """

    def __init__(self, settings: PushSettings) -> None:
        self._settings = settings
        if CURSOR_COLUMN in settings.labels:
            raise ConfigError(
                f"labels must be names of columns other than {CURSOR_COLUMN!r}, got"
                f" {settings.labels!r}"
            )
        self.labels = series_labels(settings) if settings.labels else SERIES_LABELS
        """The columns that identify a series."""
        self._maker = RowMaker(settings, self.labels)
        self._selector = RecordSelector(settings)
        self._keeps_tags = "tags" in self.labels
        self._context = FormatContext(settings, keeps_tags=self._keeps_tags)

    def rows(self, body: PushBody, received: int) -> DecodedBody:
        """The rows of a body. A row without a time has the time `received`, in Unix ms.

        Raises PushRefused: the body is not of its format, or has too many rows.
        """
        found = DecodedBody([], refused=[])
        try:
            records = self._records(body, found)
            for number, record in enumerate(records):
                if number >= PUSH_ROWS:
                    raise PushRefused(
                        413,
                        f"expected at most {PUSH_ROWS:,} rows in a body, got more; send smaller"
                        " batches",
                    )
                self._add(found, number, record, received, len(body.payload))
        except BadRecord as error:
            raise PushRefused(400, str(error)) from None
        found.values_left_out, self._maker.left_out = self._maker.left_out, 0
        return found

    def _add(self, found: DecodedBody, number: int, record: Any, received: int, size: int) -> None:
        try:
            if isinstance(record, BadRecord):
                raise record
            row = self._maker.row(record, _RESERVED, received)
            if not _SIMPLE.issuperset(map(type, row.values())):
                _check_nested(row, self.labels)
        except BadRecord as error:
            found.refuse(number, str(error))
            return
        del row[CURSOR_COLUMN]
        if size > TEXT_LIMIT:
            self._maker.limit_texts(row)
        found.rows.append(row)

    def _records(self, body: PushBody, found: DecodedBody) -> Iterator[Any]:
        """The records of a body. Raises BadRecord and PushRefused."""
        kind, payload = body
        if kind == "arrow":
            return arrow_records(payload, PUSH_ROWS, self._settings.max_message)
        if kind == "otlp":
            found.is_otlp = True
            return self._metrics(export_of_protobuf(payload))
        if kind == "ndjson":
            lines = (line for line in payload.splitlines() if line.strip())
            return self._selector.records(json_lines(lines))
        document: Document = None
        if payload.strip():
            document = decode(payload, kind, self._context)
        if is_export(document):
            found.is_otlp = True
            return self._metrics(document)
        if isinstance(document, dict) and not _OTHER_SIGNALS.isdisjoint(document):
            raise PushRefused(415, "expected metrics of OTLP, got traces, logs or profiles")
        return self._selector.records(document)

    def _metrics(self, export: dict[str, Any]) -> Iterator[Any]:
        return metric_records(export, self._settings.time, PUSH_ROWS, keeps_tags=self._keeps_tags)


def _check_nested(row: dict[str, Any], labels: Collection[str]) -> None:
    """Replace values of columns of JSON by what can be stored and read again. Raises BadRecord."""
    for name, value in row.items():
        if isinstance(value, dict | list) and name not in labels:
            row[name] = value = plain(value)
            try:
                msgspec.msgpack.encode(value)
            except (OverflowError, ValueError):
                raise BadRecord(f"a number in {name!r} is too large") from None
