"""A model of what Grafana's browser code does with the packets of one channel.

    QueryData's frame ──▶ ┌────────┐   only if the buffer's last packet was empty
    Connected's data  ──▶ │ Buffer │   after each subscription, also a repeated one
    packets           ──▶ └────────┘   with a schema, with data or with both

It follows the observed behaviour of Grafana 9.4 to 13 (live/data/StreamingDataFrame and
LiveDataStream): a schema with the same names and types changes nothing; another schema keeps the
values of fields by name and type; data with another number of columns than the schema throws; a
string field `labels` before the time splits the rows into series; the oldest rows are removed.
"""

import math
from collections.abc import Iterable
from typing import Any

import orjson

__all__ = ["UNDEFINED", "Buffer", "Mismatch", "Tab"]


class _Undefined:
    """JavaScript's undefined: the field has never had a value in this row."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED: Any = _Undefined()


class Mismatch(Exception):
    """The browser threw `push message mismatch`; the panel is not updated any more."""


class Vector:
    """The values of a field. If two fields share one vector, the values of both are lost."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.buffer = list(values)


class BrowserField:
    """A column of the panel."""

    def __init__(self, schema: dict[str, Any], values: Vector) -> None:
        self.name: str = schema.get("name", "")
        self.type: str = schema.get("type", "other")
        self.labels: Any = schema.get("labels")
        self.config: Any = schema.get("config", {})
        self.values = values


class Buffer:
    """The rows of one channel in one tab.

    `appended` is for tests: each row that was ever received, as a dict of its values.
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
        """Receive a message. Raises Mismatch where the browser throws."""
        self.last_packet = 0
        if message.get("schema"):
            self._push_schema(message["schema"]["fields"])
        data = message.get("data")
        if data and data["values"] and data["values"][0]:
            self._push_data(data)

    def column(self, name: str) -> list[Any]:
        """The values of the first field of that name."""
        return next(field.values.buffer for field in self.fields if field.name == name)

    def resize(self, max_length: int, max_delta: float) -> None:
        """A panel with a longer time range was added; a buffer never shrinks."""
        self._max_length = max(self._max_length, max_length)
        if max_delta != math.inf:
            wider = max(max_delta, self._max_delta)
            self._max_delta = max_delta if self._max_delta == math.inf else wider

    def _push_schema(self, fields: list[dict[str, Any]]) -> None:
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
            for index, field in enumerate(self.fields):
                given = fields[index % len(fields)]
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

    def _push_data(self, data: dict[str, Any]) -> None:
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
                BrowserField(_guess_schema(index, column[0]), Vector())
                for index, column in enumerate(values)
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
        """Each label gets its own columns, and rows with the same time become one row."""
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
        times = sorted({row[0] for rows in tables.values() for row in rows})
        joined: list[list[Any]] = [list(times)]
        for label in self._labels:
            at = {row[0]: row[1:] for row in tables.get(label, ())}
            joined += [
                [at[time][column] if time in at else UNDEFINED for time in times]
                for column in range(len(self._schema) - 1)
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
    """A tab of a browser with panels of one channel."""

    def __init__(self, max_length: int = 1000, max_delta: float = math.inf) -> None:
        self.buffer = Buffer(max_length, max_delta)

    def query(self, frame: bytes, max_length: int = 0, max_delta: float = math.inf) -> None:
        """A panel received QueryData's frame: a new panel, or a refresh."""
        self.buffer.resize(max_length, max_delta)
        if not self.buffer.last_packet:
            self.buffer.push(orjson.loads(frame))

    def connected(self, initial: bytes) -> None:
        """The tab has subscribed, also after a reconnect; `initial` is from SubscribeStream."""
        if initial:
            self.buffer.push(orjson.loads(initial))

    def receive(self, payload: bytes) -> None:
        """Receive a packet from RunStream."""
        self.buffer.push(orjson.loads(payload))


def _structure(fields: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    return [(field.get("name", ""), field.get("type")) for field in fields]


def _guess_schema(index: int, value: Any) -> dict[str, Any]:
    """The name and type that the browser gives to a column without a schema."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    kind = kinds.get(type(value), "other")
    if index == 0 and kind == "number" and value > 1_600_016_688_632:
        return {"name": "Time", "type": "time"}
    return {"name": f"Field {index}", "type": kind}


def _number(value: Any) -> float:
    """Convert as JavaScript's arithmetic does."""
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
