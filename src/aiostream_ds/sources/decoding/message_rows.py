"""A record of a message as a row: its time, its columns and their names, its labels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings
from aiostream_ds.sources.decoding.event_times import guess_time, read_time
from aiostream_ds.sources.decoding.fixed_values import FIXED
from aiostream_ds.sources.decoding.own_names import own_name
from aiostream_ds.sources.decoding.plain_values import columns_of

__all__ = ["COLUMNS_LIMIT", "LABEL_LIMIT", "NAME_LIMIT", "TEXT_LIMIT", "RecordShape", "RowMaker"]

COLUMNS_LIMIT = 500
"""Maximum number of columns of a row of a message; further ones are left out and counted."""

NAME_LIMIT = 200
"""Maximum characters of the name of a column; values with a longer one are left out and counted."""

LABEL_LIMIT = 1_000
"""Maximum characters of the value of a label, or of its keys and values: each series has them."""

TEXT_LIMIT = 1_000_000
"""Maximum characters of the texts of one row; values beyond are left out and counted."""

_SHAPE_KEYS = 20_000  # of all shapes that are remembered; then all are forgotten


class RecordShape(msgspec.Struct, frozen=True, gc=False):
    """What records with the same keys have in common."""

    time: str | None
    """The key of the time."""
    columns: tuple[str, ...]
    """The keys of columns that have no fixed type and are not labels."""
    labels: tuple[str, ...]
    left_out: int
    """The number of keys beyond the limits."""
    is_whole: bool
    """Whether each key but those of the time and of fixed columns is a column of its name."""


class RowMaker:
    """Makes the rows of records.

    Args:
        labels: the columns that identify a series.

    Attributes:
        left_out: the number of values that rows so far do not have.
    """

    __slots__ = ("_fixed", "_keys", "_labels", "_settings", "_shapes", "left_out")

    def __init__(self, settings: DecodingSettings, labels: Sequence[str]) -> None:
        self._settings = settings
        self._fixed = {
            name: FIXED[kind] for name, kind in settings.columns.items() if name not in labels
        }
        self._labels = labels
        self._shapes: dict[tuple[str, ...], RecordShape] = {}
        self._keys = 0
        self.left_out = 0

    def shape(self, keys: tuple[str, ...]) -> RecordShape:
        """The shape of records with these keys."""
        return self._shapes.get(keys) or self._add_shape(keys)

    def _add_shape(self, keys: tuple[str, ...]) -> RecordShape:
        settings = self._settings
        time = settings.time if settings.time in keys else guess_time(keys, settings)
        rest = [key for key in keys if key != time and key not in self._fixed]
        kept = [key for key in rest if len(key) <= NAME_LIMIT][:COLUMNS_LIMIT]
        shape = RecordShape(
            time,
            tuple(key for key in kept if key not in self._labels) if settings.others else (),
            tuple(key for key in kept if key in self._labels),
            len(rest) - len(kept),
            is_whole=0 < len(kept) == len(rest),
        )
        if shape.is_whole:  # others may have keys without a limit
            self._remember(keys, shape)
        return shape

    def _remember(self, keys: tuple[str, ...], shape: RecordShape) -> None:
        self._keys += len(keys)
        if self._keys > _SHAPE_KEYS:
            self._shapes.clear()
            self._keys = len(keys)
        self._shapes[keys] = shape

    def row(
        self, record: Mapping[str, Any], extra: Mapping[str, Any], received: int
    ) -> dict[str, Any]:
        """The row of a record. Raises BadRecord."""
        if dict in map(type, record.values()):
            record = columns_of(record, self._labels, NAME_LIMIT)
        shape = self.shape(tuple(record))
        moment = None if shape.time is None else record[shape.time]
        time = received if moment is None else read_time(moment, self._settings)
        row: dict[str, Any] = {"time": time, **extra}
        reserved = len(row)
        for name, read in self._fixed.items():
            value = record.get(name)
            row[own_name(name, row) if name in row else name] = found = read(value)
            self.left_out += found is None and value is not None and value != ""
        for name in shape.labels:
            found = _label(name, record[name])
            row[own_name(name, row) if name in row else name] = found
        _add_columns(row, record, shape.columns)
        self.left_out += shape.left_out
        if len(row) == reserved:
            raise BadRecord("expected at least one value, got none")
        return row

    def limit_texts(self, row: dict[str, Any]) -> None:
        """Leave out values beyond `TEXT_LIMIT`: a row must not exceed what is sent."""
        if _SMALL.issuperset(map(type, row.values())):  # many times faster than the loop
            return
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


_SMALL = frozenset({float, int, bool, type(None)})
"""Types whose values have a few bytes."""


def _add_columns(row: dict[str, Any], record: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Add values to a row, integers as floats. Raises BadRecord."""
    if row.keys().isdisjoint(columns):  # few calls for many columns
        values: Iterable[Any] = [*map(record.__getitem__, columns)]
        kinds = {*map(type, values)}
        try:
            if kinds == {int}:
                values = [*map(float, values)]
            elif int in kinds:
                values = [float(value) if type(value) is int else value for value in values]
            row.update(zip(columns, values, strict=True))
            return
        except OverflowError:
            pass  # found below, with its name
    for name in columns:
        value = record[name]
        if type(value) is int:
            value = _float(name, value)
        row[own_name(name, row) if name in row else name] = value


def _json_size(value: Any) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (OverflowError, RecursionError):
        return TEXT_LIMIT + 1


def _float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise BadRecord(f"the number in {name!r} is too large for a float") from None


def _label(name: str, value: Any) -> Any:
    """The value of a label. Raises BadRecord."""
    found = _label_text(value)
    size = len(found) if isinstance(found, str) else 0
    if isinstance(found, dict):
        size = sum(len(key) + len(each or "") for key, each in found.items())
    if size > LABEL_LIMIT:
        raise BadRecord(
            f"the label {name!r} must have at most {LABEL_LIMIT:,} characters, got {size:,}"
        )
    return found


def _label_text(value: Any) -> Any:
    """Numbers as they are written: `7` and not `7.0`. An object stands for its keys."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {key: each if each is None else _text(each) for key, each in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError):
        raise BadRecord("a label is too large") from None
