"""What Grafana's browser does with one channel: a model to hold our packets against.

    QueryData's frame ──▶ ┌────────┐   only if the buffer's last packet was empty
    Connected's data  ──▶ │ Buffer │   after each subscription, also a repeated one
    packets           ──▶ └────────┘   with a schema, with data or with both

Written from what Grafana is seen to do (its live/data/StreamingDataFrame and LiveDataStream), rules
that hold from 9.4 to 13: a schema of the same names and types is no change; another one keeps the
values of fields by name and type; data of another width than the schema throws; a text `labels`
before the time makes series of the rows; the oldest rows are cut off.
"""

import math
from collections.abc import Iterable
from typing import Any

import orjson

__all__ = ["UNDEFINED", "Buffer", "Mismatch", "Tab"]


class _Undefined:
    """JavaScript's other null: no value was ever here."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Any = _Undefined()


class Mismatch(Exception):
    """The browser threw `push message mismatch`, and the panel shows nothing new any more."""


class Vector:
    """The values of a field; two fields may come to share one, and then both are lost."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.buffer = list(values)


class BrowserField:
    """A column as the panel has it."""

    def __init__(self, schema: dict[str, Any], values: Vector) -> None:
        self.name: str = schema.get("name", "")
        self.type: str = schema.get("type", "other")
        self.labels: Any = schema.get("labels")
        self.config: Any = schema.get("config", {})
        self.values = values


class Buffer:
    """The rows of one channel in one tab.

    `appended` is every row that ever came in, as a dict of its values; it is the test's own.
    """

    def __init__(self, max_length: int = 1000, max_delta: float = math.inf) -> None:
        self.fields: list[BrowserField] = []
        self.length = 0
        self.last_packet = 0
        self.schema_changes = 0
        self.appended: list[dict[str, Any]] = []
        self._max_length = max_length
        self._max_delta = max_delta
        self._schema: list[dict[str, Any]] = []
        self._time = -1
        self._in_labels_mode = False
        self._labels: list[str] = []

    def push(self, message: dict[str, Any]) -> None:
        """One message. Raises Mismatch as the browser does."""
        self.last_packet = 0
        if message.get("schema"):
            self._take_schema(message["schema"]["fields"])
        data = message.get("data")
        if data and data["values"] and data["values"][0]:
            self._take_data(data)

    def column(self, name: str) -> list[Any]:
        """The values of the first field of that name."""
        return next(field.values.buffer for field in self.fields if field.name == name)

    def resize(self, max_length: int, max_delta: float) -> None:
        """A panel of a greater range joins; a buffer never shrinks."""
        self._max_length = max(self._max_length, max_length)
        if max_delta != math.inf:
            wider = max(max_delta, self._max_delta)
            self._max_delta = max_delta if self._max_delta == math.inf else wider

    def _take_schema(self, fields: list[dict[str, Any]]) -> None:
        types = [field.get("type") for field in fields]
        self._time = types.index("time") if "time" in types else -1
        self._in_labels_mode = (
            self._time == 1
            and fields[0].get("type") == "string"
            and fields[0].get("name") in ("labels", "Labels")
        )
        if self._in_labels_mode:
            self._time, fields = 0, fields[1:]
        if _structure(fields) == _structure(self._schema):
            for place, field in enumerate(self.fields):
                given = fields[place % len(fields)]
                field.config, field.labels = given.get("config", {}), given.get("labels")
        else:
            self.schema_changes += 1
            self.fields = [BrowserField(field, self._old_values(field)) for field in fields]
        self._schema = fields

    def _old_values(self, schema: dict[str, Any]) -> Vector:
        if self._in_labels_mode:
            return Vector()
        for field in self.fields:
            if (field.name, field.type) == (schema.get("name", ""), schema.get("type", "other")):
                return field.values
        return Vector([UNDEFINED] * self.length)

    def _take_data(self, data: dict[str, Any]) -> None:
        values: list[list[Any]] = data["values"]
        for column, entities in zip(values, data.get("entities") or [], strict=False):
            for key, value in (("NaN", math.nan), ("Inf", math.inf), ("NegInf", -math.inf)):
                for row in (entities or {}).get(key, ()):
                    column[row] = value
        if self._in_labels_mode:
            values = self._by_labels(values)
        if len(values) != len(self.fields):
            if self.fields:
                raise Mismatch(f"Expected: {len(self.fields)}, received: {len(values)}")
            self.fields = [
                BrowserField(_guessed(place, column[0]), Vector())
                for place, column in enumerate(values)
            ]
        self.last_packet = len(values[0])
        names = [field.name for field in self.fields]
        self.appended += [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        if not self.length:
            for field, column in zip(self.fields, values, strict=True):
                field.values.buffer = column
        else:
            for field, column in zip(self.fields, values, strict=True):
                field.values.buffer.extend(column)
            self._trim()
        self.length = len(self.fields[0].values.buffer)

    def _by_labels(self, values: list[list[Any]]) -> list[list[Any]]:
        """Each label gets columns of its own, and rows of one moment become one."""
        tables: dict[str, list[tuple[Any, ...]]] = {}
        for label, *row in zip(*values, strict=True):
            tables.setdefault(label, []).append(tuple(row))
        for label in tables:
            if label not in self._labels:
                self._labels.append(label)
                parsed = dict(pair.strip().partition("=")[::2] for pair in label.split(","))
                if len(self._labels) > 1:
                    self.fields += [
                        BrowserField(schema, Vector([UNDEFINED] * self.length))
                        for schema in self._schema[1:]
                    ]
                for field in self.fields[1 - len(self._schema) :]:
                    field.labels = parsed
        moments = sorted({row[0] for rows in tables.values() for row in rows})
        joined: list[list[Any]] = [list(moments)]
        for label in self._labels:
            at = {row[0]: row[1:] for row in tables.get(label, ())}
            joined += [
                [at[moment][place] if moment in at else UNDEFINED for moment in moments]
                for place in range(len(self._schema) - 1)
            ]
        return joined

    def _trim(self) -> None:
        columns = [field.values.buffer for field in self.fields]
        count = max(0, len(columns[0]) - self._max_length)
        if self._max_delta != math.inf and self._time >= 0:
            times = list(map(_number, columns[self._time]))
            if times[-1] - times[count] > self._max_delta:
                count = _closest(times[-1] - self._max_delta, times, count)
        for column in columns:
            del column[:count]


class Tab:
    """One tab of a browser that follows one channel, from its first panel on."""

    def __init__(self, max_length: int = 1000, max_delta: float = math.inf) -> None:
        self.buffer = Buffer(max_length, max_delta)

    def query(self, frame: bytes, max_length: int = 0, max_delta: float = math.inf) -> None:
        """A panel got QueryData's frame: the first one of the tab, another one, or a refresh."""
        self.buffer.resize(max_length, max_delta)
        if not self.buffer.last_packet:
            self.buffer.push(orjson.loads(frame))

    def connected(self, initial: bytes) -> None:
        """The subscription stands, for the first time or again; `initial` is SubscribeStream's."""
        if initial:
            self.buffer.push(orjson.loads(initial))

    def receive(self, payload: bytes) -> None:
        """A packet of RunStream's."""
        self.buffer.push(orjson.loads(payload))


def _structure(fields: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(field.get("name", ""), field.get("type")) for field in fields]


def _guessed(place: int, value: Any) -> dict[str, Any]:
    """What the browser calls a column of which it was never told."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kind = kinds.get(type(value), "other")
    if place == 0 and kind == "number" and value > 1_600_016_688_632:
        return {"name": "Time", "type": "time"}
    return {"name": f"Field {place}", "type": kind}


def _number(value: Any) -> float:
    """As JavaScript counts with what is no number."""
    if value is UNDEFINED:
        return math.nan
    return 0.0 if value is None else float(value)


def _closest(wanted: float, values: list[float], low: int) -> int:
    high = len(values) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if values[middle] < wanted:
            low = middle
        else:
            high = middle
    return low if wanted - values[low] <= values[high] - wanted else high
