"""No packet makes the browser throw or duplicates its rows, and missing rows were counted.

Two Grafana servers subscribe to one stream of generated rows. One is fast; the other is slow, so
that packets are dropped, and sometimes calls RunStream again. Tabs subscribe late on both servers,
reconnect after an interruption, and miss the packets in between. Encoder, producer, registry and
subscriptions are the real ones, in virtual time.
"""

import asyncio
import itertools
import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiostream_ds import Columns, Field, FieldType, Frame, Row
from aiostream_ds._channels.exceptions import ChannelError
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import SCHEMA_REPEAT, Buffer, Policy, SchemaPolicy
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._frames.packet import render
from aiostream_ds._frames.times import TIME_LIMIT
from aiostream_ds._streams.producer import drive
from aiostream_ds._telemetry import Counters
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.frames.browser_model import UNDEFINED, Tab

_EXAMPLES = {"fast": 10, "local": 25, "ci": 400, "deep": 10_000}[
    os.environ.get("HYPOTHESIS_PROFILE", "local")
]
KEY = ChannelKey("instance", "path")
MS = 1_700_000_000_000
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Reading(Row):
    n: int
    time: datetime
    value: float
    note: str | None = None


class Detailed(Reading, kw_only=True):
    extra: dict[str, Any] | None = None


class LabelsRow(Row):
    """Its fields select the browser's mode of many series, unless they are renamed."""

    labels: str
    time: int
    n: int


class Server:
    """A Grafana server: its RunStream call, and the tabs that it serves."""

    def __init__(self, world: "World", pace: float) -> None:
        self.tabs: list[Tab] = []
        self.with_schema = 0
        self.subscription = world.subscribe()
        self._world = world
        self._pace = pace
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            async for delivered in self.subscription:
                for schema, packet in delivered:
                    self.with_schema += schema is not None
                    payload = render(schema, packet)
                    for tab in self.tabs:
                        tab.receive(payload)
                await asyncio.sleep(self._pace)
        except ChannelError:
            self._world.has_failed = True
        finally:
            self.subscription.leave()

    async def restart(self) -> None:
        """Grafana calls RunStream again and keeps its tabs."""
        await self.aclose()
        self.subscription = self._world.subscribe()
        self._task = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()  # raises the exception of a tab


class World:
    """A stream of the rows passed to `send`, its servers and their tabs."""

    def __init__(self, policy: SchemaPolicy, rows: int) -> None:
        self.counters = Counters()
        self.registry = ChannelRegistry()
        self.encoder = RowEncoder(None, policy, self.counters, common=("n",))
        self.has_failed = False
        self.sent: list[Any] = []
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._runs = 0
        self._policy = Policy(Buffer(rows=rows), linger=600.0)
        self.fast = Server(self, 0.0)
        self.slow = Server(self, 3.0)
        self.first = Tab()
        self.fast.tabs.append(self.first)
        self.tabs = [self.first]

    def subscribe(self) -> Any:
        return self.registry.join(KEY, drive(self._rows, self.encoder.encode), self._policy)

    async def _rows(self) -> Any:
        self._runs += 1
        if self._runs > 1:  # after a failure: the fast server does not receive these rows
            await asyncio.Event().wait()
        while True:
            yield await self._queue.get()

    def send(self, item: Any) -> None:
        self.sent.append(item)
        self._queue.put_nowait(item)

    async def connect(self, tab: Tab, server: Server, delay: float, initial: bool) -> None:
        """SubscribeStream. The tab misses the packets that are sent before it is registered."""
        channel = self.registry.peek(KEY)
        if channel is None:
            return
        channel.repeat_schema()
        known = channel.schema if initial else None
        tab.connected(render(known, None) if known is not None else b"")
        await asyncio.sleep(delay)
        server.tabs.append(tab)

    def history(self) -> bytes | None:
        """QueryData's answer: the rows that the fast server has received."""
        received = {row["n"] for row in self.first.buffer.appended}
        other = self.encoder.copy()
        try:
            frame = other.frame([row for row in flat(self.sent) if number(row) in received])
        except (TypeError, ValueError):
            return None  # rows without a time, or of several kinds
        self.encoder.adopt(other)
        return json.encode(frame)

    async def aclose(self) -> None:
        await asyncio.sleep(10)
        try:
            await self.fast.aclose()
            await self.slow.aclose()
        finally:
            await self.registry.aclose()


def flat(items: Iterable[Any]) -> list[Any]:
    return [row for item in items for row in (item if isinstance(item, list) else [item])]


def number(row: Any) -> Any:
    return row["n"] if isinstance(row, dict) else getattr(row, "n", None)


def table(item: Any) -> list[dict[str, Any]]:
    """The rows of a yielded object, as dicts."""
    if isinstance(item, list):
        return [row for each in item for row in table(each)]
    if isinstance(item, dict):
        return [item]
    if isinstance(item, Row):
        return [{name: getattr(item, name) for name in item.__struct_fields__}]
    if isinstance(item, Columns):
        names, columns = item.kind.__struct_fields__, item.values
    else:
        pairs = [(field.name, str(index)) for index, field in enumerate(item.fields)]
        names = tuple(name if name in ("n", "time") else index for name, index in pairs)
        columns = [field.values for field in item.fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def present(row: dict[str, Any]) -> int:
    return sum(value is not None and value is not UNDEFINED for value in row.values())


def is_time(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= TIME_LIMIT
    return isinstance(value, datetime)


def check(world: World, labels: tuple[str, ...], conflict: str) -> None:
    for tab in world.tabs:
        numbers = [row["n"] for row in tab.buffer.appended]
        assert len(numbers) == len(set(numbers)), "rows were duplicated"
        for field in tab.buffer.fields:
            assert len(field.values.buffer) == tab.buffer.length, "columns of different lengths"
    if world.fast.subscription.statistics().dropped_rows:
        return
    sent = {row["n"]: row for item in world.sent for row in table(item)}
    received = {row["n"]: row for row in world.first.buffer.appended}
    assert list(received) == [n for n in sent if n in received], "the order has changed"
    missing = 0
    for n, row in received.items():
        source = {key: value for key, value in sent[n].items() if key not in labels}
        stamped = type(row.get("time")) is int and not is_time(source.get("time"))
        missing += present(source) - present(row) + stamped
    if conflict == "fail":
        assert list(received) == list(sent)[: len(received)]
    else:
        missing += len(sent) - len(received)
    if not world.has_failed:
        assert len(received) == len(sent) or conflict != "fail"
    assert missing == sum(world.counters.dropped.values())


# Rows that authors yield

VALID: dict[str, st.SearchStrategy[Any]] = {
    "i": st.integers(-5, 5) | st.none(),
    "f": st.floats() | st.integers(-5, 5) | st.none(),
    "s": st.text(max_size=2, alphabet=st.characters(codec="utf-8")) | st.none(),
    "b": st.booleans(),
    "j": st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=1) | st.none(),
    "labels": st.sampled_from(["", "a=1", "b"]),
}
ANY_VALUE = st.one_of(
    *VALID.values(),
    st.sampled_from([b"x", 2**70, 1j, "\ud800", NOW.replace(tzinfo=None), NOW, [1], {"a": {1}}]),
)
TIMES = st.integers(MS, MS + 60_000)
HOSTS = st.sampled_from(["a", "b", 'c"}={', "d=1, e", "", None, 5])


def dicts(mismatched: bool, labels: bool) -> st.SearchStrategy[dict[str, Any]]:
    values = {key: (value | ANY_VALUE if mismatched else value) for key, value in VALID.items()}
    values |= {"at": st.just(NOW), "time": TIMES}
    if mismatched:
        values["time"] = TIMES | st.sampled_from([NOW, "x", 1.5, None, True, 2**60])
    if labels:
        values |= {"host": HOSTS, "labels": HOSTS}
    stamped = st.fixed_dictionaries({}, optional=values)
    time = {"time": values.pop("time")}
    timed = st.fixed_dictionaries(time, optional=values)
    labels_first = st.fixed_dictionaries({"labels": values["labels"], **time})
    return timed | timed | stamped | labels_first


def readings() -> st.SearchStrategy[Any]:
    base = {"n": st.just(0), "time": st.just(NOW), "value": st.floats()}
    detailed = st.builds(Detailed, **base, extra=st.none() | st.just({"a": 1}))
    return st.builds(Reading, **base, note=VALID["s"]) | detailed


@st.composite
def blocks(draw: st.DrawFn) -> Any:
    """Columns or a frame: with two series of one name, without, or with `labels` first."""
    count = draw(st.integers(0, 3))
    numbers, values = [0] * count, draw(st.lists(st.floats(), min_size=count, max_size=count))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return Reading.from_columns(n=numbers, time=[MS] * count, value=values, note=[None] * count)
    fields = [Field("time", [MS] * count, FieldType.TIME), Field("n", numbers, FieldType.INT64)]
    if kind == 1:
        fields.insert(0, Field("labels", ["a"] * count, FieldType.STRING))
    for index in range(draw(st.integers(0, 2))):
        labels = {"host": "ab"[index]} if kind > 2 else None
        name = "v" if kind > 2 else f"v{index}"
        fields.append(Field(name, values, FieldType.FLOAT64, labels=labels, nullable=False))
    return Frame(*fields)


STEPS = st.one_of(
    st.tuples(st.just("pause"), st.sampled_from([0.1, 1.0, 5.0, SCHEMA_REPEAT + 1])),
    st.tuples(st.just("join"), st.booleans(), st.sampled_from([0.0, 0.5])),
    st.tuples(st.just("reconnect"), st.integers(0, 9), st.sampled_from([0.0, 4.0])),
    st.tuples(st.just("restart")),
    st.tuples(st.just("refresh"), st.integers(0, 9)),
)


def scripts(rows: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    given = st.tuples(st.just("rows"), rows | st.lists(rows, max_size=3))
    return st.lists(given | given | STEPS, max_size=25)


def numbered(item: Any, start: int) -> tuple[Any, int]:
    """The same rows, each with a unique number."""
    if isinstance(item, list):
        found = []
        for row in item:
            row, start = numbered(row, start)
            found.append(row)
        return found, start
    if isinstance(item, dict):
        return {**item, "n": start}, start + 1
    if isinstance(item, Columns):
        numbers = list(range(start, start + item.rows))
        return item.kind.from_columns(
            **{**dict(zip(item.kind.__struct_fields__, item.values, strict=True)), "n": numbers}
        ), start + item.rows
    if isinstance(item, Frame):
        numbers = list(range(start, start + item.rows))
        fields = [Field("n", numbers, FieldType.INT64) if f.name == "n" else f for f in item.fields]
        return Frame(*fields), start + item.rows
    values = {name: getattr(item, name) for name in item.__struct_fields__}
    return type(item)(**{**values, "n": start}), start + 1


def with_different_times(script: list[Any]) -> list[Any]:
    """The script with a time of its own in each row: rows of several series and one time would
    become one row, which has the number of the last of them."""
    seconds = itertools.count()

    def with_time(row: Any) -> Any:
        time = NOW + timedelta(seconds=next(seconds))
        if isinstance(row, dict):
            return {**row, "moment": time}
        values = {name: getattr(row, name) for name in row.__struct_fields__}
        return type(row)(**{**values, "time": time})

    def changed(item: Any) -> Any:
        return [with_time(row) for row in item] if isinstance(item, list) else with_time(item)

    return [("rows", changed(step[1])) if step[0] == "rows" else step for step in script]


async def run_script(policy: SchemaPolicy, script: list[Any], rows: int, initial: bool) -> World:
    world = World(policy, rows)
    try:
        await run_steps(world, script, initial)
    finally:
        await world.aclose()
    return world


async def run_steps(world: World, script: list[Any], initial: bool) -> None:
    count = 0
    for step, *arguments in script:
        if world.has_failed:
            break
        tab = (
            world.tabs[arguments[0] % len(world.tabs)]
            if step in ("reconnect", "refresh")
            else Tab()
        )
        if step == "rows":
            item, count = numbered(arguments[0], count)
            world.send(item)
        elif step == "pause":
            await asyncio.sleep(arguments[0])
        elif step == "restart":
            await world.slow.restart()
        elif step == "refresh" and not initial and tab in world.fast.tabs:
            frame = world.history()
            if frame is not None:
                tab.query(frame)
        elif step == "join":
            frame = world.history() if arguments[0] else None
            if frame is not None:
                tab.query(frame)
            world.tabs.append(tab)
            await world.connect(
                tab, world.fast if arguments[0] else world.slow, arguments[1], initial
            )
        elif step == "reconnect" and tab is not world.first:
            server = world.fast if tab in world.fast.tabs else world.slow
            if tab in server.tabs:
                server.tabs.remove(tab)
                await asyncio.sleep(arguments[1])
                await world.connect(tab, server, 0.5, initial)


def run(
    policy: SchemaPolicy, script: list[Any], rows: int = 10_000, initial: bool = False
) -> World:
    loop = VirtualLoop()
    try:
        world = loop.run_until_complete(run_script(policy, script, rows, initial))
        check(world, policy.labels, policy.conflict)
        return world
    finally:
        loop.close()


PROFILE = settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
BUFFER_ROWS = st.sampled_from([5, 10_000])


@pytest.mark.slow
@PROFILE
@given(
    script=scripts(dicts(mismatched=False, labels=False) | readings() | blocks()),
    columns=st.integers(1, 8),
    rows=BUFFER_ROWS,
    initial=st.booleans(),
)
def test_rows_of_all_kinds(script, columns, rows, initial):
    run(SchemaPolicy(columns=columns), script, rows, initial)


@PROFILE
@given(
    script=scripts(dicts(mismatched=True, labels=False)),
    columns=st.integers(1, 8),
    conflict=st.sampled_from(["fail", "null", "text"]),
    rows=BUFFER_ROWS,
)
def test_dicts_with_values_of_any_type(script, columns, conflict, rows):
    run(SchemaPolicy(columns=columns, conflict=conflict), script, rows)


@PROFILE
@given(
    script=scripts(dicts(mismatched=True, labels=True) | readings()),
    columns=st.integers(1, 12),
    conflict=st.sampled_from(["null", "text"]),
    labels=st.sampled_from([("host",), ("host", "labels"), ("note",)]),
    rows=BUFFER_ROWS,
)
def test_many_series_in_one_channel(script, columns, conflict, labels, rows):
    policy = SchemaPolicy(columns=columns, conflict=conflict, labels=labels)
    run(policy, with_different_times(script), rows)


def test_rows_of_one_time_without_values_are_rows_of_their_own():
    rows = [("rows", {"time": MS}), ("rows", {"time": MS}), ("rows", {"time": MS, "host": "a"})]
    world = run(SchemaPolicy(labels=("host",)), [*rows, *rows])
    assert len(world.first.buffer.appended) == 6


def test_columns_beyond_the_limit_are_dropped_and_counted():
    row = {"time": MS, **{f"c{n}": n for n in range(1000)}}
    script = [("rows", row), ("pause", 1.0), ("join", True, 0.5), ("rows", row), ("pause", 40.0)]
    world = run(SchemaPolicy(columns=500), [*script, ("rows", row)])
    assert world.counters.dropped == {"columns": 3 * 500}
    assert len(world.first.buffer.fields) == 502  # with the time and the number
    assert [row["c499"] for row in world.tabs[1].buffer.appended] == [499, 499, 499]


def test_after_a_pause_the_schema_is_sent_again_with_the_next_rows():
    row = {"time": MS, "a": 1}
    world = run(SchemaPolicy(), [("rows", row), ("pause", SCHEMA_REPEAT + 1), ("rows", row)])
    assert world.fast.with_schema == 2 and world.first.buffer.schema_changes == 1


@pytest.mark.parametrize("kind", [dict, Row, Frame])
def test_a_field_labels_before_the_time_does_not_split_the_rows(kind):
    rows: list[Any] = [{"labels": "a", "time": MS}, {"labels": "b", "time": MS, "x": 1}]
    if kind is Row:
        rows = [LabelsRow("a", MS, 0), LabelsRow("b", MS, 0)]
    elif kind is Frame:
        labels, time = Field("labels", ["a"]), Field("time", [MS], FieldType.TIME)
        rows = [Frame(labels, time, Field("n", [0])) for _ in range(2)]
    world = run(SchemaPolicy(), [("rows", row) for row in rows])
    assert len(world.first.buffer.column("labels_")) == 2


def test_nan_and_infinities_are_received():
    script = [("rows", {"time": MS, "a": value}) for value in (math.nan, math.inf, -math.inf)]
    world = run(SchemaPolicy(), script)
    assert str(world.first.buffer.column("a")) == "[nan, inf, -inf]"


def test_after_a_schema_alone_a_refresh_duplicates_the_history():
    """This is why no packet without rows is sent to a browser."""
    frame = RowEncoder().frame([{"time": MS, "n": 1}])
    tab = Tab()
    for _ in range(2):
        tab.query(json.encode(frame))
        tab.connected(orjson.dumps({"schema": orjson.loads(json.schema(frame))}))
    assert tab.buffer.column("n") == [1, 1]
