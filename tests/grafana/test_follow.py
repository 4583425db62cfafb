"""DataSource.follow: a stream over another running stream, which is run once for all."""

import asyncio
import gc
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from aiostream_ds import (
    Buffer,
    Cursor,
    DataSource,
    EnumConfig,
    Field,
    FieldConfig,
    FieldType,
    Frame,
    HistoryRange,
    NotFound,
    Retry,
    Row,
    Rows,
    SchemaPolicy,
    Status,
    TypeConfig,
    UpstreamError,
    User,
    stream,
)
from aiostream_ds.access import Allow
from aiostream_ds.operators import merge, with_timeout
from aiostream_ds.testing import Refused, create_instance, serve_in_memory

pytestmark = pytest.mark.virtual

START = datetime(2026, 1, 1, tzinfo=UTC)


class Ticks(DataSource):
    """`ticks/{hz}` counts its runs; several streams follow it."""

    def __init__(self):
        self.runs = self.running = 0

    @stream("ticks/{hz:int}")
    async def ticks(self, hz: int):
        self.runs += 1
        self.running += 1
        try:
            n = 0
            while True:
                yield {"n": n}
                n += 1
                await anyio.sleep(1 / hz)
        finally:
            await anyio.sleep(0.1)
            self.running -= 1

    @stream("doubled/{hz:int}")
    async def doubled(self, hz: int):
        async for tick in self.follow(Ticks.ticks, hz=hz):
            yield {"doubled": 2 * tick["n"], "time": tick["time"]}

    @stream("by_path/{hz:int}")
    async def by_path(self, hz: int):
        async for tick in self.follow(f"ticks/{hz}"):
            yield {"n": tick["n"]}


async def test_viewers_and_followers_share_one_run():
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        plain = await grafana.follow("ticks/10")
        derived = await grafana.follow("doubled/10")
        again = await grafana.follow("by_path/10")
        rows = await derived.take(20)
        await again.take(20)
        await plain.take(20)
        assert source.runs == 1
        first = rows[0]["doubled"]
        assert [row["doubled"] for row in rows] == [first + 2 * n for n in range(20)]


@pytest.mark.slow
async def test_the_run_ends_when_the_last_follower_has_left():
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        derived, again = await grafana.follow("doubled/10"), await grafana.follow("by_path/10")
        await derived.take(5)
        derived.leave()
        await anyio.sleep(30)
        assert source.running == 1
        await again.take(5)
        again.leave()
        await anyio.sleep(30)
        assert (source.runs, source.running) == (1, 0)
        registry = grafana.plugin.registry
        assert registry.channels == () and grafana.plugin._following._followed == {}


async def test_the_rows_of_a_follower_are_dicts_with_aware_times():
    class Times(DataSource):
        @stream("times")
        async def times(self):
            await anyio.sleep(1)
            yield {"time": START + timedelta(microseconds=1_001), "text": "a", "many": {"x": [1]}}
            yield {"time": START, "text": None, "many": None}
            await anyio.sleep_forever()

        seen = []

        @stream("seen")
        async def see(self):
            async for row in self.follow("times"):
                self.seen.append(row)
                yield row

    async with serve_in_memory(Times) as grafana:
        viewer = await grafana.follow("seen")
        assert (await viewer.take(2))[0]["text"] == "a"
        assert Times.seen == [
            {"time": START + timedelta(microseconds=1_001), "text": "a", "many": {"x": [1]}},
            {"time": START, "text": None, "many": None},
        ]


async def follow_all(rows, count, **options):
    """The rows of a followed stream that yields `rows`."""
    found = []

    class Given(DataSource):
        @stream("given", **options)
        async def given(self):
            await anyio.sleep(1)
            for row in rows:
                yield row
            await anyio.sleep_forever()

        @stream("seen")
        async def see(self):
            async for row in self.follow("given"):
                found.append(row)
                yield {"n": len(found)}

    async with serve_in_memory(Given) as grafana:
        await (await grafana.follow("seen")).take(count)
    return found


async def test_each_series_is_a_row_of_its_own():
    rows = [{"time": START, "host": host, "load": load} for host, load in (("a", 1.0), ("b", 2.0))]
    later = {"time": START + timedelta(seconds=1), "host": "b", "load": 3.0}
    found = await follow_all([*rows, later], 3, schema=SchemaPolicy(labels=("host",)))
    assert found == [*rows, later]


async def test_frames_are_followed_too():
    enum = FieldConfig(type=TypeConfig(enum=EnumConfig(text=("off", "on"))))
    frame = Frame(
        Field("time", [START, START], FieldType.TIME, nullable=False),
        Field("state", [1, 0], FieldType.ENUM, config=enum, nullable=False),
    )
    found = await follow_all([frame, Status("warning", "maintenance")], 2)
    assert found == [{"time": START, "state": "on"}, {"time": START, "state": "off"}]


async def test_a_stream_with_a_cursor_is_followed():
    class Log(DataSource):
        @stream("log", cursor="n")
        async def log(self, after: Cursor):
            n = after.value
            while True:
                n += 1
                yield {"n": n, "time": START + timedelta(seconds=n)}
                await anyio.sleep(1)

        @log.history
        async def log_history(self, history_range: HistoryRange):
            return []

        @stream("seen")
        async def see(self):
            async for row in self.follow(Log.log):
                yield {"seen": row["n"]}

    async with serve_in_memory(Log) as grafana:
        rows = await (await grafana.follow("seen")).take(5)
        assert [row["seen"] for row in rows] == [0, 1, 2, 3, 4]


# Errors


class Chain(DataSource):
    @stream("self")
    async def itself(self):
        async for row in self.follow("self"):
            yield row

    @stream("a", retry=Retry(min_delay=60, max_delay=60))
    async def a(self):
        async for row in self.follow("b"):
            yield row

    @stream("b", retry=Retry(min_delay=60, max_delay=60))
    async def b(self):
        async for row in self.follow("c"):
            yield row

    @stream("c", retry=Retry(min_delay=60, max_delay=60))
    async def c(self):
        await anyio.sleep(1)
        async for row in self.follow("a"):
            yield row


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("self", "the stream 'self' must not follow itself: 'self' → 'self'"),
        ("a", "the stream 'c' must not follow itself: 'c' → 'a' → 'b' → 'c'"),
    ],
)
async def test_a_stream_that_follows_itself_is_refused(path, text, caplog):
    async with serve_in_memory(Chain) as grafana:
        await grafana.follow(path)
        await anyio.sleep(2)
        assert text in caplog.text
        assert len(grafana.plugin.registry.channels) <= 3


async def test_a_chain_of_followers_ends_as_a_whole():
    class Long(DataSource):
        @stream("n/{depth:int}")
        async def n(self, depth: int):
            if depth:
                async for row in self.follow(Long.n, depth=depth - 1):
                    yield {"n": row["n"] + 1}
            while not depth:
                yield {"n": 0}
                await anyio.sleep(1)

    async with serve_in_memory(Long) as grafana:
        viewer = await grafana.follow("n/10")
        assert (await viewer.next())["n"] == 10
        assert len(grafana.plugin.registry.channels) == 11
        viewer.leave()
        await anyio.sleep(30)
        assert grafana.plugin.registry.channels == ()


async def test_a_bug_of_the_followed_stream_is_a_transient_error_logged_once(caplog):
    class Bug(DataSource):
        ran = 0

        @stream("bug")
        async def bug(self):
            await anyio.sleep(1)
            yield {"n": 1}
            Bug.ran += 1
            if Bug.ran == 1:
                raise ZeroDivisionError("a bug")
            await anyio.sleep_forever()

        @stream("derived")
        async def derived(self):
            async for row in self.follow("bug"):
                yield row

    async with serve_in_memory(Bug) as grafana:
        viewer = await grafana.follow("derived")
        assert [row["n"] for row in await viewer.take(2)] == [1, 1]
        assert caplog.text.count("Traceback") == 1
        assert (await grafana.metrics())['aiostream_ds_stream_errors_total{kind="transient"}'] == 1


class Flaky(DataSource):
    failing = False

    @stream("flaky", retry=Retry(min_delay=5, max_delay=5, jitter=0))
    async def flaky(self):
        await anyio.sleep(1)
        yield {"n": 1}
        await anyio.sleep(1)
        if self.failing:
            raise UpstreamError("the broker is away")
        while True:
            yield {"n": 2}
            await anyio.sleep(1)

    @stream("derived")
    async def derived(self):
        async for row in self.follow("flaky"):
            yield row

    @stream("missing")
    async def missing(self):
        async for row in self.follow("nothing"):
            yield row


async def test_viewers_see_the_status_of_the_followed_stream():
    async with serve_in_memory(Flaky) as grafana:
        source = await grafana.data_source(Flaky)
        source.failing = True
        viewer = await grafana.follow("x/derived")
        await anyio.sleep(3)
        assert b"flaky: reconnecting (1)" in viewer.packets[-1]
        source.failing = False
        await anyio.sleep(20)
        assert b"reconnecting" not in viewer.packets[-1]
        degraded = 'aiostream_ds_streams_degraded{status="followed"}'
        assert (await grafana.metrics())[degraded] == 0


async def test_the_status_of_a_stream_that_is_not_followed_any_more_is_gone():
    class Once(Flaky):
        failing = True

        @stream("once")
        async def once(self):
            rows = self.follow("flaky")
            with anyio.move_on_after(3.5):
                while True:
                    await anext(rows)
            del rows
            while True:
                await anyio.sleep(1)
                yield {"n": 3}

    async with serve_in_memory(Once) as grafana:
        viewer = await grafana.follow("x/once")
        await anyio.sleep(3)
        assert b"flaky: reconnecting (1)" in viewer.packets[-1]
        await anyio.sleep(4)
        assert b"[3]" in viewer.packets[-1]
        degraded = 'aiostream_ds_streams_degraded{status="followed"}'
        assert (await grafana.metrics())[degraded] == 0


@pytest.mark.slow
async def test_many_ways_from_one_stream_to_another_are_searched_once():
    class Layers(DataSource):
        @stream("layer/{n:int}/{side}")
        async def layer(self, n: int, side: str):
            while n == 0:
                yield {"n": 1}
                await anyio.sleep(0.1)
            other = self.follow(f"layer/{n - 1}/b")
            await anext(other)
            async for row in self.follow(f"layer/{n - 1}/a"):
                yield row

        @stream("top")
        async def top(self):
            async for row in self.follow("layer/24/a"):
                yield row

    async with serve_in_memory(Layers) as grafana:
        viewer = await grafana.follow("layer/24/a")
        await viewer.next()
        begun = time.process_time()
        await (await grafana.follow("top")).next()
        assert time.process_time() - begun < 2


async def test_a_path_of_no_stream_is_a_permanent_error():
    async with serve_in_memory(Flaky) as grafana:
        viewer = await grafana.follow("x/missing")
        await anyio.sleep(3)
        assert b"expected a path of the streams" in viewer.packets[-1]


@pytest.mark.parametrize("path", ["x/flaky", "nothing", ""])
async def test_an_impossible_path_is_named(path):
    async with serve_in_memory(Flaky) as grafana:
        source = await grafana.data_source(Flaky)
        with pytest.raises((NotFound, Exception), match=path or "''"):
            await anext(source.follow(path))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((Ticks.ticks,), "missing a required argument: 'hz'"),
        (("ticks/1", 2), r"a path takes no arguments, got \(2,\)"),
        ((1,), "expected a path, or a stream of the class, got 1"),
    ],
)
async def test_wrong_arguments_are_type_errors(arguments, text):
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        with pytest.raises(TypeError, match=text):
            source.follow(*arguments)


async def test_a_thread_cannot_follow():
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        with pytest.raises(RuntimeError, match=r"follow\(\) must be called in an event loop"):
            await anyio.to_thread.run_sync(source.follow, "ticks/1")


async def test_without_a_plugin_it_names_the_harness():
    with pytest.raises(RuntimeError, match=r"Ticks\.follow\(\) needs a plugin .* serve_in_memory"):
        create_instance(Ticks, None).follow("ticks/1")


async def test_the_end_of_the_followed_stream_is_the_end_of_the_loop():
    class Ending(DataSource):
        @stream("ending")
        async def ending(self):
            await anyio.sleep(1)
            for n in range(3):
                yield {"n": n}

        @stream("sum")
        async def sum(self):
            yield {"sum": sum([row["n"] async for row in self.follow("ending")])}

    async with serve_in_memory(Ending) as grafana:
        assert (await (await grafana.follow("sum")).next())["sum"] == 3


# Lifetime


async def test_a_loop_that_is_left_early_leaves_the_stream_at_the_latest_with_its_run():
    class Partly(Ticks):
        kept = []

        @stream("one")
        async def one(self):
            rows = self.follow("ticks/1")
            self.kept.append(rows)
            async for row in rows:
                yield row
                break

    async with serve_in_memory(Partly) as grafana:
        source = await grafana.data_source(Partly)
        await (await grafana.follow("one")).next()
        await anyio.sleep(1)
        assert (source.runs, source.running) == (1, 0)


async def test_rows_that_nothing_refers_to_leave_the_stream():
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        rows = source.follow("ticks/1")
        assert (await anext(rows))["n"] == 0
        assert source.running == 1
        del rows
        gc.collect()
        await anyio.sleep(1)
        assert source.running == 0


async def test_a_timeout_around_the_next_row_loses_none():
    async with serve_in_memory(Ticks) as grafana:
        source = await grafana.data_source(Ticks)
        rows, found = source.follow("ticks/1"), []
        while len(found) < 5:
            try:
                found.append((await asyncio.wait_for(anext(rows), 0.3))["n"])
            except TimeoutError:
                pass
        assert found == [0, 1, 2, 3, 4]
        await rows.aclose()
        assert [row async for row in rows] == []


async def test_a_task_of_the_lifespan_may_follow_a_stream_also_before_the_yield():
    class Watching(Ticks):
        seen = []

        @asynccontextmanager
        async def lifespan(self):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch)
                await anyio.sleep(1)
                yield
                tasks.cancel_scope.cancel()

        async def watch(self):
            async for tick in self.follow(Ticks.ticks, hz=1):
                self.seen.append(tick["n"])

    async with serve_in_memory(Watching) as grafana:
        await grafana.data_source(Watching)
        await anyio.sleep(10)
        assert Watching.seen[:5] == [0, 1, 2, 3, 4]


async def test_the_loop_of_a_task_of_the_lifespan_ends_when_its_instance_closes(caplog):
    class Watching(Ticks):
        ended = 0

        @asynccontextmanager
        async def lifespan(self):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch)
                yield

        async def watch(self):
            async for _ in self.follow(Ticks.ticks, hz=1):
                pass
            Watching.ended += 1

    async with serve_in_memory(Watching) as grafana:
        await grafana.data_source(Watching)
        await anyio.sleep(3)
        await grafana.change_settings({})
        await grafana.data_source(Watching)
        await anyio.sleep(30)
        assert Watching.ended == 1
    assert Watching.ended == 2
    assert [r.message for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("makes", ["again", "late"])
async def test_a_task_of_an_instance_that_was_replaced_follows_no_newer_stream(makes, caplog):
    class Watching(Ticks):
        instances = []

        @asynccontextmanager
        async def lifespan(self):
            self.instances.append(self)
            self.turns, self.rows = 0, 0
            self.late = self.follow(Ticks.ticks, hz=1)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch)
                yield

        async def watch(self):
            while self.turns < 3:
                async for _ in self.follow(Ticks.ticks, hz=1):
                    self.rows += 1
                self.turns += 1
            if makes == "late":
                self.turns += len([row async for row in self.late])

    async with serve_in_memory(Watching) as grafana:
        await grafana.data_source(Watching)
        await anyio.sleep(3)
        await grafana.change_settings({})
        await grafana.data_source(Watching)
        await anyio.sleep(30)
        old, new = Watching.instances
        assert (old.turns, old.rows) == (3, 4) and new.turns == 0
        assert new.rows > 20
    assert [r.message for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


async def test_a_loop_that_follows_again_and_again_does_not_hold_the_event_loop():
    class Watching(Ticks):
        turns = 0

        @asynccontextmanager
        async def lifespan(self):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.watch)
                yield
                tasks.cancel_scope.cancel()

        async def watch(self):
            while True:
                async for _ in self.follow(Ticks.ticks, hz=1):
                    pass
                type(self).turns += 1

    async with serve_in_memory(Watching) as grafana:
        await grafana.data_source(Watching)
        await grafana.change_settings({})
        await grafana.data_source(Watching)
        await anyio.sleep(30)
        assert 1 <= Watching.turns < 20


async def test_new_settings_restart_the_followed_stream_and_its_followers():
    async with serve_in_memory(Ticks) as grafana:
        old = await grafana.data_source(Ticks)
        viewer = await grafana.follow("doubled/1")
        await viewer.take(3)
        await grafana.change_settings({})
        await viewer.take(3)
        new = await grafana.data_source(Ticks)
        await anyio.sleep(60)
        assert new is not old
        assert (old.running, new.running) == (0, 1)
        with pytest.raises(RuntimeError, match="needs a plugin"):
            old.follow("ticks/1")


@pytest.mark.slow
async def test_a_follower_that_is_too_slow_loses_rows_as_the_buffer_states():
    class Slow(DataSource):
        @stream("fast", buffer=Buffer(rows=10))
        async def fast(self):
            await anyio.sleep(1)
            for n in range(5_000):
                yield Frame(Field("n", [n]))
                await anyio.sleep(0.01)
            await anyio.sleep_forever()

        @stream("slow")
        async def slow(self):
            async for row in self.follow("fast"):
                yield row
                await anyio.sleep(1)

    async with serve_in_memory(Slow) as grafana:
        rows = [row["n"] for row in await (await grafana.follow("slow")).take(40, 60)]
        assert rows == sorted(set(rows)) != list(range(40))
        assert (await grafana.metrics())["aiostream_ds_rows_dropped_total"] > 30


@pytest.mark.parametrize("ending", ["left", "settings", "plugin"])
async def test_the_sources_of_an_operator_have_closed_when_the_run_has_ended(ending):
    class Slow(DataSource):
        opened, closed = 0, []

        async def source(self):
            Slow.opened += 1
            try:
                while True:
                    yield {"n": 1}
                    await anyio.sleep(1)
            finally:
                await anyio.sleep(0.5)
                self.closed.append(len(grafana.plugin.registry.channels))

        @stream("slow")
        async def slow(self):
            async for row in with_timeout(merge(self.source(), self.source()), 60):
                yield row

    async with serve_in_memory(Slow) as grafana:
        viewer = await grafana.follow("slow")
        await viewer.take(4)
        if ending == "left":
            viewer.leave()
            await anyio.sleep(30)
        elif ending == "settings":
            await grafana.change_settings({})
            await viewer.take(4)
        else:
            await grafana.plugin.close()
        # with new settings, the channel of the next run waits meanwhile
        assert Slow.closed[:2] == ([2, 2] if ending == "settings" else [1, 1])
    assert Slow.opened == len(Slow.closed)


# Authorization


async def test_a_derived_stream_reads_as_the_data_source():
    class Secret(DataSource):
        @stream("secret", allow=[Allow(roles=("Admin",))])
        async def secret(self) -> Rows:
            while True:
                yield {"n": 1}
                await anyio.sleep(1)

        @secret.subscribe
        async def never(self, user: User | None) -> None:
            if user is None or user.role != "Admin":
                raise NotFound("no")

        @stream("public")
        async def public(self):
            async for row in self.follow("secret"):
                yield row

    kim = User(login="kim", role="Viewer")
    async with serve_in_memory(Secret) as grafana:
        with pytest.raises(Refused):
            await grafana.follow("secret", kim)
        assert (await (await grafana.follow("public", kim)).next())["n"] == 1


class Reading(Row):
    value: float


async def test_row_classes_are_followed():
    found = await follow_all([Reading(value=1.5), Reading(value=2.5)], 2)
    assert [row["value"] for row in found] == [1.5, 2.5]
    assert all(row["time"].tzinfo is not None for row in found)
