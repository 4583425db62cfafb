"""Schema inference: the columns of a channel's dict rows, found from their values.

Types only widen: unknown to any type, int to float, and with `conflict="text"` any type to string.
A new key adds a column; columns keep their order.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._encoding.hidden_columns import hidden_config
from aiostream_ds._encoding.row_columns import TIME, RowColumn, row_columns
from aiostream_ds._encoding.row_layout import RowLayout
from aiostream_ds._encoding.series import Series
from aiostream_ds._encoding.values import VALUE_ERRORS, is_valid, to_builtin, widen, with_text_keys
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import FieldType
from aiostream_ds._frames.packet import Schema
from aiostream_ds._frames.times import TIME_RANGE
from aiostream_ds._loggers import get_logger
from aiostream_ds._short_repr import short_repr
from aiostream_ds._telemetry import DropReason

__all__ = ["SchemaInference"]

log = get_logger(__name__)

_MIXED_TYPES = (
    "give the column values of one type, or set SchemaPolicy(conflict=…), which may drop others or"
    " make texts of them"
)
_ONLY_TIME = frozenset({TIME})  # one object for all channels
_UNKNOWN = RowColumn(None)
_ONLY_NONE = {type(None)}
_NOTHING: frozenset[str] = frozenset()


class SchemaInference:
    """Reads dicts, and rows of several series, into one table whose columns only grow.

    `layout` is the columns so far; assign it to restore the state before a batch that failed.
    `dropped` counts dropped values and rows by reason; the caller resets it.
    """

    __slots__ = (
        "_common",
        "_policy",
        "_series",
        "_warned",
        "dropped",
        "layout",
    )

    def __init__(self, policy: SchemaPolicy, common: Collection[str] = ()) -> None:
        self._policy = policy
        self._common = _ONLY_TIME.union(common) if common else _ONLY_TIME
        self._series = Series(policy, self._common) if policy.labels else None
        self._warned: frozenset[str] = _NOTHING  # what was logged: each once
        self.layout: RowLayout | None = None
        self.dropped: dict[DropReason, int] = {}

    @property
    def has_series(self) -> bool:
        """Whether rows are split by labels: then Columns and Frames are not accepted."""
        return self._series is not None

    @property
    def has_forgotten(self) -> bool:
        """Whether columns of series that are forgotten are to be removed."""
        return self._series is not None and self._series.has_forgotten

    @property
    def is_lenient(self) -> bool:
        """Whether a value that does not fit is dropped or converted instead of an error."""
        return self._policy.conflict != "fail"

    def check(self, row: type) -> None:
        """Check the policy against a class that declares the fields of its rows.

        Raises:
            TypeError: a label is not a str field of the class.
        """
        if self._series is not None:
            self._series.check(row)

    def declare(self, row: type) -> RowLayout | None:
        """The rows are the dicts of a TypedDict: begin with its columns, which may be missing in a
        row. Of series only the types are known before a row has named the series."""
        fields = self._policy.fields
        columns = {
            name: replace(each, nullable=True, config=each.config or fields.get(name))
            for name, each in row_columns(row).items()
        }
        for name in self._common & columns.keys() - {TIME}:
            columns[name] = replace(columns[name], config=hidden_config(columns[name].config))
        if self._series is not None:
            self._series.declared = columns
        else:
            self.layout = RowLayout(columns)
        return self.layout

    def copy(self) -> "SchemaInference":
        """Another object with the same columns and series."""
        copy = SchemaInference(self._policy, self._common)
        copy.layout = self.layout
        copy._warned |= self._warned
        copy._series = self._series and self._series.copy()
        return copy

    def adopt(self, inference: "SchemaInference") -> None:
        """Add another object's series, and its columns after the known ones, up to the limit."""
        if self._series is not None and inference._series is not None:
            self._series.adopt(inference._series)
        known, other = self.layout, inference.layout
        if known is None or other is None or known is other:
            self.layout = known or other
            return
        columns = dict(known.columns)
        free = self._free_columns(columns)
        for name, column in other.columns.items():
            own = columns.get(name)
            if own is not None:
                if self._is_wider(name, own.type, column.type):
                    columns[name] = replace(own, type=column.type)
            elif name in self._common:
                columns[name] = column
            elif free > 0:
                columns[name] = column
                free -= 1
        for layout in (known, other):
            if list(columns.items()) == list(layout.columns.items()):
                self.layout = layout
                return
        self.layout = RowLayout(columns)

    def learn(self, schema: Schema) -> None:
        """Begin with the columns of a schema that was inferred elsewhere, then those that only this
        object knows. A column of floats there may be one whose type is not known yet."""
        other = SchemaInference(self._policy, self._common)
        columns: dict[str, RowColumn] = {}
        for field in json.decode_rows((), schema).fields:
            if field.name == TIME and not field.nullable:
                continue  # the time of the yield
            kind = None if field.type is FieldType.FLOAT64 else field.type
            columns[field.name] = RowColumn(kind, config=field.config)
        other.layout = RowLayout(columns)
        other.adopt(self)
        if self.layout is None or list(self.layout.columns) != list(columns):
            self.layout = other.layout

    def split(self, rows: Iterable[Any], *, is_history: bool = False) -> Iterable[Any]:
        """The rows with the columns of their series, if the policy has labels."""
        if self._series is None:
            return rows
        wide_rows, mismatched, beyond_limit = self._series.split(
            rows, self._policy.conflict, is_history=is_history
        )
        self._drop("conflict", mismatched)
        self._drop("series", beyond_limit)
        if mismatched:
            self._warn(
                "labels",
                "a stream has rows whose label (one of %s) has no text: such rows are left out",
                ", ".join(self._policy.labels),
            )
        if beyond_limit:
            self._warn(
                "series",
                "rows of more than %d series: rows of further series are dropped until others are"
                " silent; raise the limit with SchemaPolicy(series=…)",
                self._policy.series,
            )
        return wide_rows

    def read(self, rows: list[Mapping[str, Any]]) -> tuple[RowLayout, list[list[Any]], int] | None:
        """The layout including these rows, their values by column, and the number of rows. None if
        all rows were dropped.

        Raises:
            TypeError, ValueError: a value does not fit. The caller restores `layout`.
        """
        columns = dict(self.layout.columns) if self.layout is not None else {}
        self._remove_forgotten(columns)
        dropped: dict[DropReason, int] = {"columns": 0, "conflict": 0}
        for index, row in enumerate(rows):
            if not row.keys() <= columns.keys():
                rows[index] = row = with_text_keys(row)
                self._add_columns(columns, row, dropped)
        table: dict[str, list[Any]] = {}
        for name in _with_time_last(columns):
            column = columns[name]
            values = table[name] = [row.get(name) for row in rows]
            if set(map(type, values)) == _ONLY_NONE:
                continue
            if name == TIME and self._policy.conflict != "fail":
                kept = _rows_with_valid_time(values, columns)
                if len(kept) < len(rows):
                    self._drop("conflict", len(rows) - len(kept))
                    left_out = values[min(set(range(len(rows))) - set(kept))]
                    self._warn(
                        "time",
                        "a stream has rows whose column 'time' is not %s (got %s): such rows"
                        " are left out; give aware datetimes or ints of Unix milliseconds, or None"
                        " for the time of the yield",
                        TIME_RANGE,
                        short_repr(left_out),
                    )
                    return self.read([rows[index] for index in kept]) if kept else None
            conflict = "fail" if name in self._common and name != TIME else self._policy.conflict
            try:
                kind, table[name], mismatched = widen(name, column.type, values, conflict)
            except TypeError as error:
                if name in self._common:
                    raise
                raise TypeError(f"{error}; {_MIXED_TYPES}") from None
            dropped["conflict"] += mismatched
            if mismatched:
                self._warn(
                    "conflict",
                    "a stream has values that do not fit its column %r (%s): such values are left"
                    " out",
                    name,
                    "no type" if kind is None else kind.name.lower(),
                )
            if kind is not column.type:
                columns[name] = replace(column, type=kind)
        for reason, count in dropped.items():
            self._drop(reason, count)
        if self.layout is None or columns != self.layout.columns:
            self.layout = RowLayout(columns)
        return self.layout, [table[name] for name in columns], len(rows)

    def _drop(self, reason: DropReason, count: int) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _add_columns(
        self, columns: dict[str, RowColumn], row: Mapping[str, Any], dropped: dict[DropReason, int]
    ) -> None:
        """Add a column for each new key of a row, up to the limit."""
        free = self._free_columns(columns)
        if self._series is not None and free < len(row):
            self._series.forget_silent()
            self._remove_forgotten(columns)
            free = self._free_columns(columns)
        for key, value in row.items():
            if key in columns:
                continue
            if free <= 0 and key not in self._common:
                if value is not None:
                    dropped["columns"] += 1
                    self._warn(
                        "columns",
                        "a stream has more than %d columns: the values of %r and of other new keys"
                        " are dropped; raise the limit with SchemaPolicy(columns=…), which with"
                        " labels counts the values of each series",
                        self._policy.columns,
                        key,
                    )
            elif isinstance(key, str) and is_valid([str(key)], FieldType.STRING):
                columns[key] = self._column(key)
                if key not in self._common:
                    free -= 1
            elif self._policy.conflict == "fail":
                raise TypeError(
                    "the name of a column must be a str that UTF-8 can encode, got"
                    f" {short_repr(key)}"
                )
            elif value is not None:
                dropped["conflict"] += 1
                self._warn(
                    "keys",
                    "a stream has values whose key is not a str that UTF-8 can encode (got %s):"
                    " such values are left out",
                    short_repr(key),
                )

    def _remove_forgotten(self, columns: dict[str, RowColumn]) -> None:
        """Remove the columns of the series that were forgotten."""
        if self._series is None or not self._series.has_forgotten:
            return
        self._series.has_forgotten = False
        forgotten = self._series.forgotten(columns)
        for name in forgotten:
            del columns[name]
        log.info(
            "%d columns of silent series were removed: there are too many series or columns",
            len(forgotten),
        )

    def _column(self, name: str) -> RowColumn:
        config = self._policy.fields.get(name)
        if name in self._common and name != TIME:
            return RowColumn(None, config=hidden_config(config))
        if self._series is not None:
            return self._series.column(name)
        return _UNKNOWN if config is None else RowColumn(None, config=config)

    def _warn(self, about: str, message: str, *arguments: object) -> None:
        """Log what is left out, once."""
        if about not in self._warned:
            self._warned |= {about}
            log.warning(message, *arguments)

    def _free_columns(self, columns: Mapping[str, RowColumn]) -> int:
        common = sum(name in columns for name in self._common)
        return self._policy.columns - len(columns) + common

    def _is_wider(self, name: str, known: FieldType | None, other: FieldType | None) -> bool:
        """Whether a column of the type `known` takes the type `other`."""
        if known is None or other is None:
            return known is None and other is not None
        if (known, other) == (FieldType.INT64, FieldType.FLOAT64):
            return True
        if self._policy.conflict != "text" or name in self._common or known is FieldType.TIME:
            return False
        return other is FieldType.STRING and known is not other


def _with_time_last(columns: Mapping[str, RowColumn]) -> list[str]:
    """The names of the columns. `time` may be of any type if another column has the times, so that
    its values are read after all others."""
    names = [name for name in columns if name != TIME]
    return [*names, TIME] if TIME in columns else names


def _rows_with_valid_time(values: list[Any], columns: Mapping[str, RowColumn]) -> list[int]:
    """The indexes of the values that the column `time` can hold; all other columns are complete."""
    kind = columns[TIME].type
    all_rows = list(range(len(values)))
    if kind is not None and kind is not FieldType.TIME:
        return all_rows
    valid = [index for index in all_rows if values[index] is None or _is_time(values[index])]
    if kind is None and all(values[index] is None for index in valid):
        if any(column.type is FieldType.TIME for column in columns.values()):
            return all_rows  # another column has the times: `time` may be of any type
    return valid


def _is_time(value: Any) -> bool:
    try:
        value = to_builtin(TIME, value)
    except VALUE_ERRORS:
        return False
    return value is None or (type(value) in (int, datetime) and is_valid([value], FieldType.TIME))
