"""Many series in one channel: rows whose `labels` say which series they are of.

A row `{"time": t, "host": "a", "cpu": 1.5}` with the label `host` becomes a row of one wide table,
`{"time": t, 'cpu {host="a"}': 1.5}`, in which each series has columns of its own. All else is as
with any dict: columns join as series appear, history and live rows agree, and the browser keeps
what it has when columns are added. A value of each series has its labels in its field's `labels`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import Conflict
from aiostream_ds._encoding.field_names import full_name, legend, shown
from aiostream_ds._encoding.row_layout import TIME, Column, row_layout
from aiostream_ds._encoding.values import ODD, plain, text
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.rows import Columns, Row

__all__ = ["Series"]

_MOST_NAMES = 10_000  # series come and go; what is forgotten is found again

_UNKNOWN = Column(None)


class Series:
    """Splits the rows of one channel by their labels.

    `common` names the columns beside the time that belong to no series, as the cursor does.
    """

    __slots__ = ("_columns", "_common", "_known", "_labels", "_most", "_names")

    def __init__(self, labels: Sequence[str], common: Collection[str], most: int) -> None:
        self._most = most
        self._known: set[tuple[str | None, ...]] = set()
        self._labels = tuple(labels)
        self._common = frozenset({TIME, *common})
        self._names: dict[tuple[Any, ...], str] = {}
        self._columns: dict[str, Column] = {}

    def check(self, row: type[Row]) -> None:
        """Raises TypeError when a label is no text of this class."""
        columns = row_layout(row).columns
        for label in self._labels:
            if label not in columns or columns[label].type is not FieldType.STRING:
                texts = [name for name, c in columns.items() if c.type is FieldType.STRING]
                raise TypeError(
                    f"the label {label!r} is no field of text of {row.__qualname__}; "
                    f"there {'is' if len(texts) == 1 else 'are'} {', '.join(texts) or 'none'}"
                )

    def copy(self) -> "Series":
        """Another one that knows the series which this one does."""
        found = Series(self._labels, self._common, self._most)
        found._known = set(self._known)
        return found

    def split(
        self, rows: Iterable[Any], conflict: Conflict
    ) -> tuple[list[dict[str, Any]], int, int]:
        """The rows with the columns of their series; how many had to be left out, and how many of
        them for a series too many.

        A row is left out when a label of it cannot be text, unless `conflict` is "fail": then that
        is a TypeError or ValueError, as it always is for what is no such row at all.
        """
        if len(self._names) > _MOST_NAMES:
            self._names.clear()
            self._columns.clear()
        found, lost, beyond = [], 0, 0
        for row in rows:
            columns, values = self._opened(row)
            try:
                labels = tuple([self._label(name, values.get(name)) for name in self._labels])
                if labels not in self._known:
                    if len(self._known) >= self._most:
                        beyond += 1
                        continue
                    self._known.add(labels)
                found.append(self._wide(columns, values, labels))
            except ODD:
                if conflict == "fail":
                    raise
                lost += 1
        return found, lost, beyond

    def column(self, name: str) -> Column:
        """What is known of a column that `split` has named."""
        return self._columns.get(name, _UNKNOWN)

    def _opened(self, row: Any) -> tuple[Mapping[str, Column], Mapping[str, Any]]:
        """The declared columns of a row, if there are any, and its values."""
        if isinstance(row, Mapping):
            return {}, row
        if isinstance(row, Row):
            columns = row_layout(type(row)).columns
            return columns, {name: getattr(row, name) for name in columns}
        what = type(row).__name__ if isinstance(row, Columns | Frame) else repr(row)
        raise TypeError(f"a stream with labels yields a dict, a Row or a list of them, not {what}")

    def _wide(
        self,
        columns: Mapping[str, Column],
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
        """None: the row has no such label."""
        return value if value is None or type(value) is str else text(plain(name, value))

    def _name(self, key: Any, values: tuple[str | None, ...], column: Column) -> str:
        name = self._names.get((key, values))
        if name is None:
            if not isinstance(key, str):
                raise TypeError(f"the column {key!r} is no str")
            labels = {k: v for k, v in zip(self._labels, values, strict=True) if v is not None}
            name = self._names[key, values] = full_name(key, labels)
            self._columns[name] = Column(
                column.type, True, _config(column.config, key, labels), labels or None
            )
        return name


def _config(config: FieldConfig | None, key: str, labels: Mapping[str, str]) -> FieldConfig | None:
    """Between the rows of one series are those of others: lines go on where those have nothing."""
    if not labels:
        return config
    custom = {"spanNulls": True, **((config and config.custom) or {})}
    if config is not None and config.display_name:
        return shown(config, "", custom=custom, display_name=legend(config.display_name, labels))
    return shown(config, legend(key, labels), custom=custom)
