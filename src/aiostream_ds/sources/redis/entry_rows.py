"""Entries of Redis streams as rows."""

from typing import Any

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.decoding import MessageDecoder, MessageErrors
from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.own_names import own_name
from aiostream_ds.sources.event_lag import NO_LAG, Lag
from aiostream_ds.sources.redis.entry_reader import Entry
from aiostream_ds.sources.redis.positions import parse_id
from aiostream_ds.sources.redis.redis_settings import RedisSettings

__all__ = ["ID_COLUMNS", "EntryRows"]

ID_COLUMNS = ("id_ms", "id_seq")
"""The columns of the two numbers of an id: the cursor."""


class EntryRows:
    """Makes rows of the entries of streams. The time of a row is that of its id, unless the entry
    has a time of its own.

    Args:
        settings: how entries are decoded.
        errors: where bad entries are counted.
        series: whether the labels of the settings make series; else they are columns.

    Attributes:
        lag: between the ids and the rows that were made.
    """

    def __init__(
        self, settings: RedisSettings, errors: MessageErrors, *, series: bool = True
    ) -> None:
        self.lag = NO_LAG
        self.decoder = MessageDecoder(settings, errors, series=series)
        self._payload_field = settings.payload_field.encode()
        self._limit = settings.max_message

    @property
    def status(self) -> Status | None:
        """A change of the status of bad entries; see `MessageDecoder.status`."""
        return self.decoder.status()

    def with_ids(self, name: str, entries: list[Entry]) -> list[dict[str, Any]]:
        """One row for each entry, with the columns of its id. An entry that is several rows is bad:
        they would have one cursor."""
        found = []
        for id, values in entries:
            ms, seq = parse_id(id)
            rows = self._rows(name, values, {"id_ms": ms, "id_seq": seq}, ms)
            self._add_lag(ms, rows)
            if len(rows) > 1:
                self.decoder.add_bad(
                    name, f"an entry must be one row, got one of {len(rows)}", values
                )
            elif rows:
                found.append(rows[0])
        return found

    def with_name(self, name: str, entries: list[Entry]) -> list[dict[str, Any]]:
        """The rows of entries, with the name of their stream in the column `stream`."""
        found = []
        for id, values in entries:
            ms = parse_id(id)[0]
            rows = self._rows(name, values, {"stream": name}, ms)
            self._add_lag(ms, rows)
            found += rows
        return found

    def _add_lag(self, ms: int, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["time"] != ms:
                lag = ms - row["time"]
                self.lag = self.lag.joined(Lag(lag, lag))

    def _rows(
        self, name: str, values: list[bytes], extra: dict[str, Any], ms: int
    ) -> list[dict[str, Any]]:
        size = sum(map(len, values))
        if size > self._limit:
            self.decoder.add_bad(
                name,
                f"expected at most {self._limit:,} bytes, which the setting maxMessage allows, got"
                f" {size:,}",
                values[1][:1_000],
            )
            return []
        fields = dict(zip(values[::2], values[1::2], strict=True))
        if 2 * len(fields) < len(values):
            try:
                fields = _distinct(values)
            except BadRecord as error:
                self.decoder.add_bad(name, str(error), values[1][:1_000])
                return []
        payload = fields.pop(self._payload_field, None) if self._payload_field else None
        if payload is None:
            return self.decoder.field_rows(fields, extra, ms, address=name)
        if not fields:
            return self.decoder.rows(payload, extra, ms, address=name)
        bad = self.decoder.errors.messages
        rows = self.decoder.rows(payload, {**_columns(fields), **extra}, ms, address=name)
        if rows or self.decoder.errors.messages > bad:
            return rows
        # the payload is empty, or null: the other fields are the row
        return self.decoder.field_rows(fields, extra, ms, address=name)


def _distinct(values: list[bytes]) -> dict[bytes, bytes]:
    """The fields of an entry that has a field several times: later ones get a trailing `_`.

    Raises BadRecord: it has one too often.
    """
    fields: dict[str, bytes] = {}
    for name, value in zip(values[::2], values[1::2], strict=True):
        fields[own_name(name.decode(errors="surrogateescape"), fields)] = value
    return {name.encode(errors="surrogateescape"): value for name, value in fields.items()}


def _columns(fields: dict[bytes, bytes]) -> dict[str, Any]:
    """Fields next to a payload as columns; they are texts."""
    return {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in fields.items()
        if name != b"time"
    }
