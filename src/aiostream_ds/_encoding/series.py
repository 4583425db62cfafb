"""Many series in one channel: the values of a row's labels name the series of the row.

With the label `host`, a row `{"time": t, "host": "a", "cpu": 1.5}` becomes a row of one wide table,
`{"time": t, 'cpu {host="a"}': 1.5}`, in which each series has its own columns. Columns are added as
series appear, and each column's field has the series' labels.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import Conflict
from aiostream_ds._encoding.field_names import full_name, legend, with_display_name
from aiostream_ds._encoding.row_layout import TIME, RowColumn, row_layout
from aiostream_ds._encoding.values import VALUE_ERRORS, to_builtin, to_string
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.rows import Columns, Row

__all__ = ["Series"]

_MAX_NAMES = 10_000  # the cache is cleared then

_UNKNOWN = RowColumn(None)


class Series:
    """Splits the rows of one channel by their labels.

    Args:
        labels: the names of the labels.
        common: the columns, apart from the time, that belong to no series, such as the cursor.
        limit: the maximum number of series.
    """

    __slots__ = ("_columns", "_common", "_known", "_labels", "_limit", "_names")

    def __init__(self, labels: Sequence[str], common: Collection[str], limit: int) -> None:
        self._limit = limit
        self._known: set[tuple[str | None, ...]] = set()
        self._labels = tuple(labels)
        self._common = frozenset({TIME, *common})
        self._names: dict[tuple[Any, ...], str] = {}
        self._columns: dict[str, RowColumn] = {}

    def check(self, row: type[Row]) -> None:
        """Check the labels against a row class.

        Raises:
            TypeError: a label is not a str field of the class.
        """
        columns = row_layout(row).columns
        for label in self._labels:
            if label not in columns or columns[label].type is not FieldType.STRING:
                names = [name for name, c in columns.items() if c.type is FieldType.STRING]
                raise TypeError(
                    f"labels of {row.__qualname__} must be str fields"
                    f" ({', '.join(names) or 'it has none'}), got {label!r}"
                )

    def copy(self) -> "Series":
        """Another object with the same series."""
        found = Series(self._labels, self._common, self._limit)
        found._known = set(self._known)
        return found

    def split(
        self, rows: Iterable[Any], conflict: Conflict
    ) -> tuple[list[dict[str, Any]], int, int]:
        """The rows with the columns of their series; how many rows were dropped because of a label,
        and how many because of the limit.

        A row is dropped when one of its labels cannot be converted to str, unless `conflict` is
        "fail".

        Raises:
            TypeError, ValueError: an object is not a dict or Row, or a label cannot be converted.
        """
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
            self._columns.clear()
        found, mismatched, beyond_limit = [], 0, 0
        for row in rows:
            columns, values = self._columns_and_values(row)
            try:
                labels = tuple([self._label(name, values.get(name)) for name in self._labels])
                if labels not in self._known:
                    if len(self._known) >= self._limit:
                        beyond_limit += 1
                        continue
                    self._known.add(labels)
                found.append(self._wide_row(columns, values, labels))
            except VALUE_ERRORS:
                if conflict == "fail":
                    raise
                mismatched += 1
        return found, mismatched, beyond_limit

    def column(self, name: str) -> RowColumn:
        """The column that `split` has given this name, as far as it is declared."""
        return self._columns.get(name, _UNKNOWN)

    def _columns_and_values(self, row: Any) -> tuple[Mapping[str, RowColumn], Mapping[str, Any]]:
        """The declared columns of a row, none of a dict, and its values."""
        if isinstance(row, Mapping):
            return {}, row
        if isinstance(row, Row):
            columns = row_layout(type(row)).columns
            return columns, {name: getattr(row, name) for name in columns}
        shown = type(row).__name__ if isinstance(row, Columns | Frame) else repr(row)
        raise TypeError(
            f"a stream with labels must yield a dict, a Row or a list of them, got {shown}"
        )

    def _wide_row(
        self,
        columns: Mapping[str, RowColumn],
        values: Mapping[str, Any],
        labels: tuple[str | None, ...],
    ) -> dict[str, Any]:
        wide = {}
        for key, value in values.items():
            if key in self._labels:
                continue
            if key in self._common or isinstance(value, datetime):
                wide[key] = value
                if key in columns and key not in self._columns:
                    self._columns[key] = replace(columns[key], nullable=True)
            elif value is not None:
                wide[self._name(key, labels, columns.get(key, _UNKNOWN))] = value
        return wide

    def _label(self, name: str, value: Any) -> str | None:
        """The label's value as a str; None if the row does not have the label."""
        return value if value is None or type(value) is str else to_string(to_builtin(name, value))

    def _name(self, key: Any, values: tuple[str | None, ...], column: RowColumn) -> str:
        name = self._names.get((key, values))
        if name is None:
            if not isinstance(key, str):
                raise TypeError(f"the name of a column must be a str, got {key!r}")
            labels = {k: v for k, v in zip(self._labels, values, strict=True) if v is not None}
            name = self._names[key, values] = full_name(key, labels)
            self._columns[name] = RowColumn(
                column.type, True, _config(column.config, key, labels), labels or None
            )
        return name


def _config(config: FieldConfig | None, key: str, labels: Mapping[str, str]) -> FieldConfig | None:
    """The config of a series' column. `spanNulls` draws lines across the rows of other series."""
    if not labels:
        return config
    custom = {"spanNulls": True, **((config and config.custom) or {})}
    if config is not None and config.display_name:
        display_name = legend(config.display_name, labels)
        return with_display_name(config, "", custom=custom, display_name=display_name)
    return with_display_name(config, legend(key, labels), custom=custom)
