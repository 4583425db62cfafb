"""A record of a message as a row: its time, its columns and their names, its labels."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings
from aiostream_ds.sources.decoding.event_times import guess_time, read_time
from aiostream_ds.sources.decoding.fixed_values import FIXED
from aiostream_ds.sources.decoding.plain_values import columns_of

__all__ = ["COLUMNS_LIMIT", "NAME_LIMIT", "TEXT_LIMIT", "RowMaker"]

COLUMNS_LIMIT = 500
"""Maximum number of columns of a row of a message; further ones are left out and counted."""

NAME_LIMIT = 200
"""Maximum characters of the name of a column; values with a longer one are left out and counted."""

TEXT_LIMIT = 1_000_000
"""Maximum characters of the texts of one row; values beyond are left out and counted."""


class RowMaker:
    """Makes the rows of records.

    Args:
        labels: the columns that identify a series.

    Attributes:
        left_out: the number of values that rows so far do not have.
    """

    __slots__ = ("_fixed", "_labels", "_settings", "left_out")

    def __init__(self, settings: DecodingSettings, labels: Collection[str]) -> None:
        self._settings = settings
        self._fixed = {name: FIXED[kind] for name, kind in settings.columns.items()}
        self._labels = labels
        self.left_out = 0

    def time_key(self, keys: Collection[str]) -> str | None:
        """The key of the time of a record with these keys."""
        settings = self._settings
        return settings.time if settings.time in keys else guess_time(keys, settings)

    def row(
        self, record: Mapping[str, Any], extra: Mapping[str, Any], received: int
    ) -> dict[str, Any]:
        """The row of a record. Raises BadRecord."""
        if any(type(value) is dict for value in record.values()):
            record = columns_of(record, self._labels, NAME_LIMIT)
        key = self.time_key(record)
        moment = None if key is None else record.get(key)
        time = received if moment is None else read_time(moment, self._settings)
        row: dict[str, Any] = {"time": time, **extra}
        reserved = len(row)
        for name, read in self._fixed.items():
            value = record.get(name)
            row[_own(name, row)] = found = read(value)
            self.left_out += found is None and value is not None and value != ""
        for name, value in record.items():
            if name == key or name in self._fixed:
                continue
            if name in self._labels:
                value = _label(value)
            elif not self._settings.others:
                continue
            elif type(value) is int:
                value = _float(name, value)
            if len(row) - reserved >= COLUMNS_LIMIT or len(name) > NAME_LIMIT:
                self.left_out += 1
            else:
                row[_own(name, row)] = value
        if len(row) == reserved:
            raise BadRecord("expected at least one value, got none")
        return row

    def limit_texts(self, row: dict[str, Any]) -> None:
        """Leave out values beyond `TEXT_LIMIT`: a row must not exceed what is sent."""
        size = 0
        for name, value in row.items():
            if isinstance(value, str):
                size += len(value)
            elif isinstance(value, dict | list):
                size += _json_size(value)
            else:
                continue
            if size > TEXT_LIMIT:
                row[name] = None
                self.left_out += 1


def _json_size(value: Any) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (OverflowError, RecursionError):
        return TEXT_LIMIT + 1


def _own(name: str, row: Mapping[str, Any]) -> str:
    """The name of a column of the message: another one than those that exist."""
    while name in row:
        name += "_"
    return name


def _float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise BadRecord(f"the number in {name!r} is too large for a float") from None


def _label(value: Any) -> Any:
    """The value of a label: numbers as they are written, `7` and not `7.0`."""
    if isinstance(value, dict):
        return {key: _label(each) for key, each in value.items()}
    if value is None or isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError):
        raise BadRecord("a label is too large") from None
