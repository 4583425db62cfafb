"""Many series in one channel: the values of a row's labels name the series of the row.

With the label `host`, a row `{"time": t, "host": "a", "cpu": 1.5}` becomes a row of one wide table,
`{"time": t, 'cpu {host="a"}': 1.5}`, in which each series has its own columns. Columns are added as
series appear, and each column's field has the series' labels. Rows of different series with the
same time become one row, so that a packet grows with its values and not with series times rows.

A label whose value is a mapping stands for its keys: with the label `tags`, a row with
`{"tags": {"host": "a", "cpu": "0"}}` belongs to the series `{host="a", cpu="0"}`.

In a stream with a cursor only consecutive rows of one time become one row, which has the cursor of
the last of them: cursors rise from row to row, and rows after any of them can be read again.

When there are too many series, those that have had no rows for long are forgotten.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import takewhile
from math import inf
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import Conflict, SchemaPolicy
from aiostream_ds._encoding.field_names import full_name, legend, with_display_name
from aiostream_ds._encoding.row_columns import TIME, RowColumn, row_columns
from aiostream_ds._encoding.row_kinds import row_kind
from aiostream_ds._encoding.row_layout import row_layout
from aiostream_ds._encoding.table_rows import frame_rows, is_table, live_rows
from aiostream_ds._encoding.values import VALUE_ERRORS, to_text, with_text_keys
from aiostream_ds._frames.columns import FLOATS, RANGES
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds._short_repr import short_repr
from aiostream_ds.rows import Columns

__all__ = ["Series"]

_Label = str | tuple[tuple[str, str], ...] | None

_Labels = tuple[_Label, ...]
"""The values of a series' labels: None for a label that its rows do not have, pairs of key and
value for one that is a mapping, such as tags."""

_MAX_NAMES = 10_000  # the cache is cleared then

_UNKNOWN = RowColumn(None)


class Series:
    """Splits the rows of one channel by their labels.

    Args:
        policy: the names of the labels, the limit of series, and when a silent one is forgotten.
        common: the columns, apart from the time, that belong to no series, such as the cursor.
    """

    __slots__ = (
        "_columns",
        "_common",
        "_labels",
        "_names",
        "_policy",
        "_seen",
        "declared",
        "has_forgotten",
    )

    def __init__(self, policy: SchemaPolicy, common: Collection[str]) -> None:
        self._policy = policy
        self._labels = policy.labels
        self._common = frozenset({TIME, *common})
        # when the last row of a series came, least recent first
        self._seen: OrderedDict[_Labels, float] = OrderedDict()
        self.has_forgotten = False
        self.declared: Mapping[str, RowColumn] = {}  # of a TypedDict
        self._names: dict[tuple[Any, ...], str] = {}
        self._columns: dict[str, RowColumn] = {}

    def check(self, row: type) -> None:
        """Check the labels against a class that declares the fields of its rows.

        Raises:
            TypeError: a label is not a str field of the class.
        """
        columns = row_columns(row)
        for label in self._labels:
            if label not in columns or columns[label].type is not FieldType.STRING:
                names = [name for name, c in columns.items() if c.type is FieldType.STRING]
                raise TypeError(
                    f"labels of {row.__qualname__} must be str fields"
                    f" ({', '.join(names) or 'it has none'}), got {label!r}"
                )

    def copy(self) -> "Series":
        """Another object with the same series."""
        found = Series(self._policy, self._common)
        found._seen = self._seen.copy()
        found.declared = self.declared
        return found

    def adopt(self, other: "Series") -> None:
        """Add the series of another object, as those of a history."""
        for labels in other._seen.keys() - self._seen.keys():
            self._add_silent(labels)

    def split(
        self, rows: Iterable[Any], conflict: Conflict, *, is_history: bool
    ) -> tuple[list[dict[str, Any]], int, int]:
        """The rows with the columns of their series, as one row for each time; how many rows were
        dropped because of a label, and how many because of the limit.

        A row is dropped when one of its labels cannot be converted to str, unless `conflict` is
        "fail". A second row of a series with the same time stays a row of its own.

        Raises:
            TypeError, ValueError: an object is not a dict or Row, or a label cannot be converted.
        """
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
            self._columns.clear()
        cursor = self._common - {TIME}
        table: _WideTable | _CursorTable = _CursorTable(cursor) if cursor else _WideTable()
        mismatched = beyond_limit = 0
        now = time.monotonic()
        for columns, values in self._single_rows(rows):
            try:
                labels = tuple([self._label(name, values.get(name)) for name in self._labels])
                if not self._see(labels, now, is_history):
                    beyond_limit += 1
                    continue
                table.add(*self._wide_row(columns, values, labels))
            except VALUE_ERRORS:
                if conflict == "fail":
                    raise
                mismatched += 1
        return table.rows, mismatched, beyond_limit

    def _see(self, labels: _Labels, now: float, is_history: bool) -> bool:
        """A row of a series has come. False if it is a new one and there are too many."""
        if labels not in self._seen:
            if len(self._seen) >= self._policy.series:
                if not is_history:
                    self.forget_silent()
                if len(self._seen) >= self._policy.series:
                    return False
            if is_history:
                self._add_silent(labels)
        if not is_history:
            self._seen[labels] = now
            self._seen.move_to_end(labels)
        return True

    def _add_silent(self, labels: _Labels) -> None:
        """Add a series that only a history has: a new live series may replace it at once."""
        self._seen[labels] = -inf
        self._seen.move_to_end(labels, last=False)

    def forget_silent(self) -> None:
        """Forget the series that have been silent for long; sets `has_forgotten`."""
        oldest = time.monotonic() - self._policy.forget
        silent = list(takewhile(lambda labels: self._seen[labels] <= oldest, self._seen))
        for labels in silent:
            del self._seen[labels]
        self.has_forgotten = self.has_forgotten or bool(silent)

    def forgotten(self, columns: Mapping[str, RowColumn]) -> list[str]:
        """The names of the columns that belong to a series that is not known any more."""
        known = {tuple(sorted(self._pairs(labels).items())) for labels in self._seen}
        return [
            name
            for name, column in columns.items()
            if column.labels is not None and tuple(sorted(column.labels.items())) not in known
        ]

    def column(self, name: str) -> RowColumn:
        """The column that `split` has given this name, as far as it is declared."""
        return self._columns.get(name, _UNKNOWN)

    def _single_rows(
        self, rows: Iterable[Any]
    ) -> Iterator[tuple[Mapping[str, RowColumn], Mapping[Any, Any]]]:
        """For each row its declared columns and its values."""
        for row in rows:
            if is_table(type(row)):
                row = live_rows(row)
            kind = row_kind(type(row))
            if kind is not None and kind.names is not None:
                columns = row_layout(row.__class__).columns
                yield columns, {name: getattr(row, name) for name in kind.names}
            elif kind is not None:
                values = row if kind.to_dict is None else kind.to_dict(row)
                yield self.declared, with_text_keys(values)
            elif isinstance(row, Frame):
                columns = _frame_columns(row)
                yield from ((columns, values) for values in frame_rows(row))
            elif row != []:  # of an empty table
                shown = type(row).__name__ if isinstance(row, Columns) else short_repr(row)
                raise TypeError(
                    "a stream with labels must yield single rows, tables or lists of rows, got"
                    f" {shown}"
                )

    def _wide_row(
        self,
        columns: Mapping[str, RowColumn],
        values: Mapping[str, Any],
        labels: _Labels,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The time and other common columns of a row, and the columns of its series."""
        common: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in values.items():
            if key in self._labels:
                continue
            if key in self._common or isinstance(value, datetime):
                common[key] = value
                if key in columns and key not in self._columns:
                    self._columns[key] = replace(columns[key], nullable=True)
            elif value is not None:
                own[self._name(key, labels, columns.get(key, _UNKNOWN))] = value
        return common, own

    def _pairs(self, labels: _Labels) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in zip(self._labels, labels, strict=True):
            if isinstance(value, str):
                found[name] = value
            elif value is not None:
                found |= value
        return found

    def _label(self, name: str, value: Any) -> _Label:
        """The label's value as a str; None if the row does not have the label."""
        if value is None or type(value) is str:
            return value
        if isinstance(value, Mapping):
            texts = {to_text(name, key): to_text(name, each) for key, each in value.items()}
            return tuple(sorted((k, v) for k, v in texts.items() if v is not None)) or None
        text: str | None = to_text(name, value)
        return text

    def _name(self, key: Any, values: _Labels, column: RowColumn) -> str:
        name = self._names.get((key, values))
        if name is None:
            if not isinstance(key, str):
                raise TypeError(f"the name of a column must be a str, got {short_repr(key)}")
            labels = self._pairs(values)
            name = self._names[key, values] = full_name(key, labels)
            config = column.config or self._policy.fields.get(key)
            self._columns[name] = RowColumn(
                column.type, True, _config(config, key, labels), labels or None
            )
        return name


def _frame_columns(frame: Frame) -> dict[str, RowColumn]:
    labelled = next((field.name for field in frame.fields if field.labels), None)
    if labelled is not None:
        raise TypeError(
            f"a Frame in a stream with labels must have fields without labels, got {labelled!r}"
        )
    return {
        field.name: RowColumn(_row_type(field.type), True, field.config) for field in frame.fields
    }


def _row_type(kind: FieldType) -> FieldType:
    """The type of a row's column: of the types of numbers, rows have two."""
    if kind in FLOATS:
        return FieldType.FLOAT64
    return FieldType.INT64 if kind in RANGES and kind is not FieldType.TIME else kind


class _WideTable:
    """Rows of many series, as one row for each time."""

    __slots__ = ("_at", "rows")

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._at: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Add a row with its common columns and those of its series."""
        moment = (*common, *common.values())
        try:
            row = self._at.get(moment)
        except TypeError:  # a time that the column will refuse
            self.rows.append({**common, **own})
            return
        if row is not None and own and row.keys().isdisjoint(own):
            row.update(own)
            return
        row = self._at[moment] = {**common, **own}
        self.rows.append(row)


class _CursorTable:
    """As `_WideTable`, of rows with a cursor in these columns."""

    __slots__ = ("_cursor", "_shared", "rows")

    def __init__(self, cursor: Collection[str]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._cursor = cursor
        self._shared: dict[str, Any] | None = None  # of the last row

    def add(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Add a row with its common columns and those of its series."""
        shared = {name: value for name, value in common.items() if name not in self._cursor}
        if shared == self._shared and own and self.rows[-1].keys().isdisjoint(own):
            self.rows[-1].update(common)
            self.rows[-1].update(own)
        else:
            self._shared = shared
            self.rows.append({**common, **own})


def _config(config: FieldConfig | None, key: str, labels: Mapping[str, str]) -> FieldConfig | None:
    """The config of a series' column. `spanNulls` draws lines across the rows of other series."""
    if not labels:
        return config
    custom = {"spanNulls": True, **((config and config.custom) or {})}
    if config is not None and config.display_name:
        display_name = legend(config.display_name, labels)
        return with_display_name(config, "", custom=custom, display_name=display_name)
    return with_display_name(config, legend(key, labels), custom=custom)
