"""The columns of the dicts of one channel: found from their values, under a SchemaPolicy.

Types only ever widen (unknown → any, int → float, a new key → a new column, and under "text"
anything → text); names keep their order. What the policy leaves out is counted and said once.
"""

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._encoding.row_layout import TIME, Column, Layout
from aiostream_ds._encoding.series import Series
from aiostream_ds._encoding.values import ODD, is_sound, plain, widen
from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import FieldType
from aiostream_ds.rows import Row

__all__ = ["SchemaInference"]

_log = logging.getLogger(__name__)

_UNKNOWN = Column(None)
_HIDDEN = FieldConfig(custom={"hideFrom": {"legend": True, "tooltip": True, "viz": True}})
_NUMBERS = Column(None, config=_HIDDEN)
_NOTHING = {type(None)}


class SchemaInference:
    """Reads dicts, and rows of several series, as one table that only grows.

    `layout` is the columns so far; it may be put back after a batch that failed. `lost` counts
    what was left out since it was last emptied.
    """

    __slots__ = ("_common", "_policy", "_series", "_series_told", "_told", "layout", "lost")

    def __init__(self, policy: SchemaPolicy, common: Collection[str] = ()) -> None:
        self._policy = policy
        self._common = frozenset({TIME, *common})
        self._series = (
            None if not policy.labels else Series(policy.labels, self._common, policy.series)
        )
        self._told = self._series_told = False
        self.layout: Layout | None = None
        self.lost: dict[str, int] = {}

    @property
    def has_series(self) -> bool:
        """Whether rows are split by labels: then there are no rows of another kind."""
        return self._series is not None

    @property
    def is_lenient(self) -> bool:
        """Whether a dict's value that does not fit is no error."""
        return self._policy.conflict != "fail"

    def check(self, row: type[Row]) -> None:
        """Raises TypeError when the labels are no texts of this class."""
        if self._series is not None:
            self._series.check(row)

    def copy(self) -> "SchemaInference":
        """Another one that knows what this one does."""
        found = SchemaInference(self._policy, self._common)
        found.layout, found._told = self.layout, self._told
        found._series = self._series and self._series.copy()
        return found

    def adopt(self, other: Layout | None) -> None:
        """Take over these columns, behind those known here."""
        known = self.layout
        if known is None or other is None or known is other:
            self.layout = known or other
            return
        columns = dict(known.columns)
        room = self._room(columns)
        for name, column in other.columns.items():
            mine = columns.get(name)
            if mine is not None:
                if self._is_wider(name, mine.type, column.type):
                    columns[name] = replace(mine, type=column.type)
            elif name in self._common or room > 0:
                columns[name] = column
                room -= name not in self._common
        for layout in (known, other):
            if list(columns.items()) == list(layout.columns.items()):
                self.layout = layout
                return
        self.layout = Layout(columns)

    def split(self, rows: Iterable[Any]) -> Iterable[Any]:
        """The rows with the columns of their series, when there are labels."""
        if self._series is None:
            return rows
        found, odd, beyond = self._series.split(rows, self._policy.conflict)
        self._lose("conflict", odd)
        self._lose("series", beyond)
        if beyond and not self._series_told:
            self._series_told = True
            _log.warning(
                "rows of more than %d series: those beyond are left out; SchemaPolicy(series=…) is"
                " how many may be", self._policy.series,
            )  # fmt: skip
        return found

    def read(self, rows: list[Mapping[str, Any]]) -> tuple[Layout, list[list[Any]], int] | None:
        """The columns once these rows are in them, the values and their number; None when no row
        is left. Raises TypeError or ValueError; what was found is to be put back then."""
        columns = dict(self.layout.columns) if self.layout is not None else {}
        lost = {"columns": 0, "conflict": 0}
        for row in rows:
            if not row.keys() <= columns.keys():
                self._add(columns, row, lost)
        table: dict[str, list[Any]] = {}
        for name in sorted(columns, key=TIME.__eq__):  # the time last: it may be another column
            column = columns[name]
            values = table[name] = [row.get(name) for row in rows]
            if set(map(type, values)) == _NOTHING:
                continue
            if name == TIME and self._policy.conflict != "fail":
                kept = _timed(values, columns)
                if len(kept) < len(rows):
                    self._lose("conflict", len(rows) - len(kept))
                    return self.read([rows[place] for place in kept]) if kept else None
            rule = "fail" if name in self._common and name != TIME else self._policy.conflict
            kind, table[name], odd = widen(name, column.type, values, rule)
            lost["conflict"] += odd
            if kind is not column.type:
                columns[name] = replace(column, type=kind)
        for reason, count in lost.items():
            self._lose(reason, count)
        if self.layout is None or columns != self.layout.columns:
            self.layout = Layout(columns)
        return self.layout, [table[name] for name in columns], len(rows)

    def _lose(self, reason: str, count: int) -> None:
        if count:
            self.lost[reason] = self.lost.get(reason, 0) + count

    def _add(
        self, columns: dict[str, Column], row: Mapping[str, Any], lost: dict[str, int]
    ) -> None:
        """The columns that a row brings, as long as there is room."""
        room = self._room(columns)
        for key, value in row.items():
            if key in columns:
                continue
            if room <= 0 and key not in self._common:
                if value is not None:
                    lost["columns"] += 1
                    self._tell(key)
            elif isinstance(key, str) and is_sound([str(key)], FieldType.STRING):
                columns[key] = self._column(key)
                room -= key not in self._common
            elif self._policy.conflict == "fail":
                raise TypeError(f"the column {key!r} is no str that UTF-8 can hold")
            else:
                lost["conflict"] += value is not None

    def _column(self, name: str) -> Column:
        if name in self._common and name != TIME:
            return _NUMBERS  # nobody wants to see a cursor drawn
        return self._series.column(name) if self._series is not None else _UNKNOWN

    def _tell(self, key: object) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "a stream brings more than %d columns: the values of %r, and of what else is new,"
                " are left out",
                self._policy.columns,
                key,
            )

    def _room(self, columns: Mapping[str, Column]) -> int:
        return self._policy.columns - len(columns.keys() - self._common)

    def _is_wider(self, name: str, mine: FieldType | None, other: FieldType | None) -> bool:
        if mine is None or other is None:
            return mine is not other and other is not None
        if (mine, other) == (FieldType.INT64, FieldType.FLOAT64):
            return True
        if self._policy.conflict != "text" or name in self._common or mine is FieldType.TIME:
            return False
        return other is FieldType.STRING and mine is not other


def _timed(values: list[Any], columns: Mapping[str, Column]) -> list[int]:
    """The places of the values that the column `time` can take; the others have columns by now."""
    kind = columns[TIME].type
    everywhere = list(range(len(values)))
    if kind is not None and kind is not FieldType.TIME:
        return everywhere
    found = [place for place in everywhere if values[place] is None or _is_time(values[place])]
    if kind is None and all(values[place] is None for place in found):
        if any(column.type is FieldType.TIME for column in columns.values()):
            return everywhere  # then `time` may be anything
    return found


def _is_time(value: Any) -> bool:
    try:
        value = plain(TIME, value)
    except ODD:
        return False
    return value is None or (type(value) in (int, datetime) and is_sound([value], FieldType.TIME))
