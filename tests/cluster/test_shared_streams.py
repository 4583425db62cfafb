"""Streams with share="cluster": several Grafana servers with a plugin process each, and one engine
in memory, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count

import anyio
import msgspec
import pytest

from aiostream_ds import (
    Broadcast,
    Cursor,
    DataSource,
    HistoryRange,
    PermissionDenied,
    Row,
    Rows,
    Settings,
    Status,
    UpstreamError,
    User,
    stream,
)
from aiostream_ds._cluster.cluster_access import ClusterAccess
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds.testing import Grafana, Refused, Viewer, serve_in_memory
from tests.cluster.cluster_access import access
from tests.cluster.model_engine import ModelEngine, ModelServer

pytestmark = pytest.mark.virtual

START = 1_700_000_000_000
TAKEOVER = 2.0  # seconds


class Line(Row):
    time: int
    n: int


class Pair(Row):
    time: int
    ms: int
    seq: int


class Upstream:
    """A log of rows, and who reads it. `changed` is set at each change."""

    def __init__(self):
        self.rows: list[Line] = []
        self.changed = anyio.Event()
        self.runs: Counter[str] = Counter()
        self.running: Counter[str] = Counter()

    def write(self, number: int = 1):
        first = len(self.rows) + 1
        self.rows += [Line(START + n, n) for n in range(first, first + number)]
        self.changed.set()
        self.changed = anyio.Event()

    async def after(self, name: str, position: int) -> AsyncIterator[Line]:
        self.runs[name] += 1
        self.running[name] += 1
        try:
            while True:
                while position < len(self.rows):
                    position += 1
                    yield self.rows[position - 1]
                await self.changed.wait()
        finally:
            self.running[name] -= 1


upstream = Upstream()


@pytest.fixture(autouse=True)
def new_upstream():
    global upstream
    upstream = Upstream()


class Where(Settings):
    place: str = ""


class Shared(DataSource[Where]):
    """`lines` can be read again, `live` cannot."""

    published = Broadcast()

    @stream("lines/{name}", cursor="n", share="cluster")
    async def lines(self, after: Cursor, name: str) -> Rows[Line]:
        async for line in upstream.after(f"lines/{name}", max(after.value, 0)):
            yield line

    @lines.history
    async def lines_of(self, history_range: HistoryRange, name: str):
        return history_range.select(upstream.rows, "n")

    @stream("live/{name}", share="cluster")
    async def live(self, name: str):
        async for line in upstream.after(f"live/{name}", len(upstream.rows)):
            yield {"n": line.n}

    @stream("dicts", cursor="n", share="cluster")
    async def dicts(self, after: Cursor) -> Rows[dict]:
        async for line in upstream.after("dicts", max(after.value, 0)):
            yield {"time": line.time, "b": line.n / 2, "n": line.n, "a": "text"}

    @dicts.history
    async def dicts_of(self, history_range: HistoryRange):
        rows = history_range.select(upstream.rows, "n")
        return [{"a": "text", "n": row.n, "time": row.time, "b": row.n / 2} for row in rows]

    @stream("pairs", cursor=("ms", "seq"), share="cluster")
    async def pairs(self, after: Cursor[tuple[int, int]]) -> Rows[Pair]:
        async for line in upstream.after("pairs", max(after.value[1], 0)):
            yield Pair(line.time, START, line.n)

    @pairs.history
    async def pairs_of(self, history_range: HistoryRange[tuple[int, int]]):
        rows = [Pair(line.time, START, line.n) for line in upstream.rows]
        return history_range.select(rows, cursor=("ms", "seq"))

    @stream("private/{name}", share="cluster")
    async def private(self, name: str):
        async for line in upstream.after(f"private/{name}", len(upstream.rows)):
            yield {"n": line.n}

    @private.subscribe
    def admins(self, user: User, name: str):
        if user.role != "Admin":
            raise PermissionDenied("admins only")

    @stream("troubled", share="cluster")
    async def troubled(self):
        upstream.runs["troubled"] += 1
        yield Status("warning", "maintenance")
        await upstream.changed.wait()
        yield {"n": len(upstream.rows)}
        raise UpstreamError("gone")

    @stream("broken", share="cluster")
    async def broken(self):
        upstream.runs["broken"] += 1
        yield {"n": 1}
        raise ZeroDivisionError

    @stream("short", share="cluster")
    async def short(self):
        await upstream.changed.wait()
        yield {"n": 1}


@asynccontextmanager
async def cluster(
    number: int,
    engine: ModelServer | None = None,
    keys: Sequence[bytes] = (),
    first: int = 1,
    **options,
) -> AsyncIterator[tuple[list[Grafana], ModelServer]]:
    """Servers with plugins in one cluster, whose nodes are numbered from `first` on."""
    engine = engine or ModelServer()
    numbers = count(first)

    def make_access() -> ClusterAccess:
        return access(engine, next(numbers), Cipher(keys) if keys else None)

    async with AsyncExitStack() as stack:
        yield (
            [
                await stack.enter_async_context(
                    serve_in_memory(Shared, cluster=make_access, **options)
                )
                for _ in range(number)
            ],
            engine,
        )


async def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until something is true. Returns the seconds that it took."""
    start = anyio.current_time()
    while not condition():
        assert anyio.current_time() < start + seconds, "the condition has not become true"
        await anyio.sleep(0.01)
    return anyio.current_time() - start


def owner_of(servers: list[Grafana], path: str) -> Grafana:
    """The server whose plugin runs the stream."""
    (found,) = [
        server
        for server in servers
        if any(each.key.path == path for each in server.plugin.shared.inner.channels)
    ]
    return found


async def exact_viewer(server: Grafana, path: str, query_type: str, **fields) -> Viewer:
    end = datetime.fromtimestamp(START / 1000, UTC) + timedelta(hours=1)
    start = end - timedelta(days=2)
    query = {"queryType": query_type, "exact": True, **fields}
    frames = await server.query(query, start=start, end=end)
    return await server.follow(f"x/{path}", frame=frames[0])


def numbers(viewer: Viewer) -> list[int]:
    return [row["n"] for row in viewer.rows]


def have_all(viewers: list[Viewer]) -> bool:
    return all(numbers(viewer)[-1:] == [len(upstream.rows)] for viewer in viewers)


async def test_viewers_of_all_servers_share_one_run_and_get_each_row_once():
    async with cluster(3) as (servers, _):
        viewers = [await server.follow("live/a") for server in servers for _ in range(2)]
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(3)
        for _ in range(5):
            upstream.write(3)
            await anyio.sleep(0.05)
        await wait_for(lambda: all(len(viewer.rows) == 15 for viewer in viewers))
        assert all(numbers(viewer) == list(range(1, 16)) for viewer in viewers)
        assert upstream.runs == {"live/a": 1}


async def test_a_cursor_of_two_columns_is_shared_although_it_has_more_than_64_bits():
    async with cluster(2) as (servers, _):
        viewers = [await server.follow("pairs") for server in servers]
        await wait_for(lambda: upstream.running["pairs"] == 1)
        await anyio.sleep(3)
        upstream.write(5)
        await wait_for(lambda: all(len(viewer.rows) == 5 for viewer in viewers))
        assert [[row["seq"] for row in viewer.rows] for viewer in viewers] == [[1, 2, 3, 4, 5]] * 2
        assert upstream.runs == {"pairs": 1}


@pytest.mark.slow
async def test_many_channels_have_one_run_each():
    async with cluster(3) as (servers, _):
        for server in servers:
            for each in range(20):
                await server.follow(f"live/{each}")
        await wait_for(lambda: len(upstream.running) == 20)
        await anyio.sleep(5)
        assert set(upstream.runs.values()) == {1}
        roles = Counter()
        for server in servers:
            metrics = await server.metrics()
            for role in ("owner", "follower"):
                roles[role] += metrics[f'aiostream_ds_cluster_channels{{role="{role}"}}']
            assert metrics["aiostream_ds_cluster_connected"] == 1
            assert metrics["aiostream_ds_cluster_nodes"] == 3
        assert roles == {"owner": 20, "follower": 40}


async def test_the_run_goes_on_when_the_viewers_of_its_server_leave():
    async with cluster(2) as (servers, _):
        viewers = {server: await server.follow("live/a") for server in servers}
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        owner = owner_of(servers, "live/a")
        (other,) = set(servers) - {owner}
        viewers[owner].leave()
        await anyio.sleep(60)
        upstream.write(2)
        await anyio.sleep(1)
        assert numbers(viewers[other]) == [1, 2]
        assert upstream.runs["live/a"] == 1
        again = await owner.follow("live/a")  # the session is still there
        await anyio.sleep(1)
        upstream.write(1)
        await anyio.sleep(1)
        assert numbers(again) == [3]
        assert numbers(viewers[other]) == [1, 2, 3]


async def test_the_last_viewer_of_the_last_server_ends_the_run():
    async with cluster(2) as (servers, engine):
        viewers = [await server.follow("live/a") for server in servers]
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        for viewer in viewers:
            viewer.leave()
        await wait_for(lambda: upstream.running["live/a"] == 0, 60)
        assert not any(server.plugin.shared.inner.channels for server in servers)


@pytest.mark.slow
async def test_a_killed_owner_is_replaced_without_a_missing_or_doubled_row():
    async with cluster(3) as (servers, _):
        viewers = [await exact_viewer(server, "lines/a", "lines", name="a") for server in servers]
        plain = [await server.follow("lines/a") for server in servers]
        await wait_for(lambda: upstream.running["lines/a"] == 1)
        await anyio.sleep(2)
        away: dict[Grafana, set[int]] = {server: set() for server in servers}
        for _ in range(4):
            owner = owner_of(servers, "lines/a")
            for _ in range(20):
                upstream.write(2)
                await anyio.sleep(0.01)
            written = len(upstream.rows)
            await owner.kill()
            start = anyio.current_time()
            for _ in range(10):
                upstream.write(1)
                await anyio.sleep(0.01)
            # its viewers see by the next cursor what they lack, and fetch it
            away[owner] |= set(range(written + 1, len(upstream.rows) + 1))
            others = [v for v, s in zip(plain, servers, strict=True) if s is not owner]
            await wait_for(partial(have_all, others))
            assert anyio.current_time() - start < TAKEOVER
        await anyio.sleep(3)
        wanted = list(range(1, len(upstream.rows) + 1))
        for viewer, server in zip(viewers, servers, strict=True):
            found = numbers(viewer)
            assert found == [n for n in wanted if n in found or n not in away[server]], server


async def test_row_numbers_are_those_of_the_cluster_on_all_servers():
    async with cluster(2) as (servers, _):
        first = await servers[0].follow("x/live/a")
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(1)
        upstream.write(5)
        await anyio.sleep(1)
        second = await servers[1].follow("x/live/a")
        await anyio.sleep(3)
        upstream.write(2)
        await anyio.sleep(3)
        assert first.position == second.position
        assert first.position.value == 7
        pages = [
            (await server.resource("replay/rows?path=live%2Fa&after=0")).body for server in servers
        ]
        assert pages[0] == pages[1]
        frames = [
            await server.query({"queryType": "live", "name": "a", "exact": True})
            for server in servers
        ]
        assert [each[0].meta.custom["cursor"]["last"] for each in frames] == [7, 7]
        assert frames[0][0].rows == frames[1][0].rows == 7


async def test_a_server_whose_viewers_come_later_has_all_rows_of_the_log():
    async with cluster(2) as (servers, _):
        await servers[0].follow("live/a")
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(1)
        for _ in range(200):  # a message each
            upstream.write()
            await anyio.sleep(0.05)
        query = {"queryType": "live", "name": "a"}
        (frame,) = await servers[1].query(query)  # nobody follows it on this server
        assert frame.rows == 200
        (exact,) = await servers[1].query(query | {"exact": True})
        assert exact.meta.custom["cursor"]["last"] == 200
        first, second = [await server.follow("x/live/a") for server in servers]
        await anyio.sleep(3)
        assert second.position == first.position
        assert exact.meta.custom["cursor"]["epoch"] == second.position.epoch
        (frame,) = await servers[1].query(query)
        assert frame.rows == 200


async def test_inferred_columns_are_those_of_the_owner_on_all_servers():
    async with cluster(2) as (servers, _):
        first = await servers[0].follow("x/dicts")
        await wait_for(lambda: upstream.running["dicts"] == 1)
        await anyio.sleep(1)
        upstream.write(3)
        await anyio.sleep(1)
        await servers[1].query({"queryType": "dicts", "exact": True})  # infers columns by itself
        second = await servers[1].follow("x/dicts")
        await anyio.sleep(3)
        upstream.write(2)
        await anyio.sleep(1)
        assert first.position == second.position
        assert second.position.value == 5
        end = datetime.fromtimestamp(START / 1000, UTC) + timedelta(hours=1)
        query = {"queryType": "dicts", "exact": True}
        frames = [
            await server.query(query, start=end - timedelta(days=2), end=end) for server in servers
        ]
        epochs = {frame.meta.custom["cursor"]["epoch"] for (frame,) in frames}
        assert epochs == {second.position.epoch}
        columns = [[field.name for field in frame.fields] for (frame,) in frames]
        assert columns == [["time", "b", "n", "a"]] * 2


async def test_numbers_go_on_when_another_server_takes_the_channel_and_viewers_see_the_gap():
    async with cluster(2) as (servers, _):
        viewers = {server: await server.follow("x/live/a") for server in servers}
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        upstream.write(5)
        await anyio.sleep(1)
        owner = owner_of(servers, "live/a")
        (other,) = set(servers) - {owner}
        before = viewers[other].position
        await owner.kill()
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2.5)
        upstream.write(1)
        await anyio.sleep(0.5)
        assert viewers[other].position == before._replace(value=6)
        assert any(b"rows are missing" in packet for packet in viewers[other].packets)


def kept_by_browser(viewer: Viewer) -> list[int]:
    """The rows that an exact panel keeps: of one epoch only those after the newest that it has."""
    kept: list[int] = []
    newest = Cursor("", 0)
    for data in viewer.packets:
        packet = msgspec.json.decode(data)
        if "cursor" not in packet:
            continue
        epoch, last = packet["cursor"]["epoch"], packet["cursor"]["last"]
        numbers_of_rows = packet["data"]["values"][1] if "data" in packet else []
        if epoch != newest.epoch:  # the panel loads again
            newest = Cursor(epoch, last - len(numbers_of_rows))
        kept += numbers_of_rows[max(newest.value - last + len(numbers_of_rows), 0) :]
        newest = Cursor(epoch, max(newest.value, last))
    return kept


def sent_to_browser(viewer: Viewer) -> list[int]:
    """All rows of the packets of an exact panel."""
    packets = [msgspec.json.decode(data) for data in viewer.packets]
    return [n for packet in packets if "data" in packet for n in packet["data"]["values"][1]]


@pytest.mark.diagonal
@pytest.mark.parametrize("is_in_flight", [False, True])
@pytest.mark.parametrize("rows_while_cut", [0, 1, 20])
async def test_a_server_that_was_cut_off_and_ran_its_stream_on_loses_no_row_when_it_is_back(
    rows_while_cut, is_in_flight
):
    async with cluster(2) as (servers, _):
        viewers = {server: await server.follow("x/live/a") for server in servers}
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        upstream.write(5)
        await anyio.sleep(1)
        owner = owner_of(servers, "live/a")
        (other,) = set(servers) - {owner}
        shared = viewers[owner].position
        engine = owner.plugin.shared.node.engine
        engine.is_cut = True
        if is_in_flight:
            upstream.write(2)  # for the log, before it is known that it cannot be reached
        engine.disconnect()
        for _ in range(rows_while_cut):
            upstream.write()
            await anyio.sleep(0.1)
        await anyio.sleep(5)
        upstream.write(rows_while_cut)
        await anyio.sleep(1)
        engine.is_cut = False
        await anyio.sleep(10)
        for _ in range(3):
            upstream.write()
            await anyio.sleep(1)
        assert viewers[owner].position == viewers[other].position
        assert viewers[other].position.epoch == shared.epoch
        assert kept_by_browser(viewers[owner]) == list(range(1, len(upstream.rows) + 1))
        for viewer in viewers.values():
            assert kept_by_browser(viewer) == sent_to_browser(viewer)


async def test_numbers_of_a_server_without_the_engine_are_not_given_again_in_a_log_that_is_empty():
    engine = ModelServer()
    engine.is_up = False
    async with cluster(1, engine) as ((server,), _):
        viewer = await server.follow("x/live/a")
        await wait_for(lambda: upstream.running["live/a"] == 1)
        upstream.write(5)
        await anyio.sleep(1)
        engine.is_up = True
        await anyio.sleep(10)
        for _ in range(3):
            upstream.write()
            await anyio.sleep(1)
        assert kept_by_browser(viewer) == list(range(1, 9))


@pytest.mark.parametrize("servers_of_cluster", [1, 2])
@pytest.mark.parametrize("path", ["lines/a", "live/a"])
async def test_a_key_that_was_replaced_at_once_is_reported_and_the_stream_goes_on(
    path, servers_of_cluster, caplog
):
    engine = ModelServer()
    async with cluster(1, engine, keys=[bytes(32)]) as ((server,), _):
        before = await server.follow(f"x/{path}")
        await anyio.sleep(2)
        upstream.write(5)
        await anyio.sleep(1)
        position = before.position
    new = [bytes([1]) * 32]
    async with cluster(servers_of_cluster, engine, new, first=2) as (servers, _):
        viewers = [await server.follow(f"x/{path}") for server in servers]
        await wait_for(lambda: upstream.running[path] == 1)
        await anyio.sleep(2)
        upstream.write(3)
        await anyio.sleep(1)
        for viewer in viewers:
            assert sent_to_browser(viewer)[-3:] == [6, 7, 8]
            assert b"status" not in viewer.packets[-1]
            if path == "live/a":
                assert viewer.position.epoch != position.epoch
            else:
                assert viewer.position == position._replace(value=8)
        assert upstream.runs[path] == 2
    assert "a message of the cluster cannot be read: it is encrypted by another key" in caplog.text


async def test_all_viewers_see_the_status_of_the_stream():
    async with cluster(2) as (servers, _):
        viewers = [await server.follow("x/troubled") for server in servers]
        await anyio.sleep(3)
        assert all(b'"maintenance"' in viewer.packets[-1] for viewer in viewers)
        upstream.write()
        await anyio.sleep(0.3)
        for viewer in viewers:
            assert any(b"reconnecting (1): gone" in packet for packet in viewer.packets)


async def test_a_bug_is_retried_by_its_server_with_a_growing_delay():
    async with cluster(3) as (servers, _):
        for server in servers:
            await server.follow("broken")
        await anyio.sleep(20)
        assert 3 <= upstream.runs["broken"] <= 8


async def test_when_the_stream_returns_it_ends_for_all_viewers():
    async with cluster(2) as (servers, _):
        viewers = [await server.follow("short") for server in servers]
        await anyio.sleep(2)
        upstream.write()
        await anyio.sleep(2)
        assert [numbers(viewer) for viewer in viewers] == [[1], [1]]
        assert all(viewer.ended for viewer in viewers)


async def test_a_stopped_process_gives_its_channels_up_at_once():
    async with cluster(2) as (servers, engine):
        for server in servers:
            await server.follow("live/a")
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        owner = owner_of(servers, "live/a")
        await owner.plugin.close()
        assert await wait_for(lambda: upstream.running["live/a"] == 1) < 0.5
        assert upstream.runs["live/a"] == 2


async def test_without_the_engine_each_server_runs_its_own_stream_with_a_notice():
    async with cluster(2) as (servers, engine):
        viewers = [await server.follow("x/lines/a") for server in servers]
        plain = [await server.follow("lines/a") for server in servers]
        await wait_for(lambda: upstream.running["lines/a"] == 1)
        await anyio.sleep(2)
        upstream.write(3)
        await anyio.sleep(1)
        engine.is_up = False
        engine.disconnect_all()
        await wait_for(lambda: upstream.running["lines/a"] == 2)
        upstream.write(3)
        await anyio.sleep(5)
        assert all(b"cluster cannot be reached" in viewer.packets[-1] for viewer in viewers)
        for server in servers:
            ok, message = await server.health()
            assert ok
            assert "streams are not shared: the cluster cannot be reached" in message
            assert (await server.metrics())["aiostream_ds_cluster_connected"] == 0
        engine.is_up = True
        await wait_for(lambda: upstream.running["lines/a"] == 1, 30)
        upstream.write(3)
        await anyio.sleep(5)
        assert not any(b"status" in viewer.packets[-1] for viewer in viewers)
        for viewer in plain:
            assert numbers(viewer) == list(range(1, 10))


async def test_encrypted_messages_are_shared_and_the_engine_cannot_read_them():
    async with cluster(2, keys=[bytes(32)]) as (servers, engine):
        viewers = [await server.follow("live/secret-name") for server in servers]
        await wait_for(lambda: upstream.running["live/secret-name"] == 1)
        await anyio.sleep(2)
        upstream.write(3)
        await anyio.sleep(1)
        assert [numbers(viewer) for viewer in viewers] == [[1, 2, 3]] * 2
        (frame,) = await servers[1].query({"queryType": "live", "name": "secret-name"})
        assert frame.rows == 3
        stored = b"".join(each[0].payload for log in engine.appended.values() for each in log)
        assert b"values" not in stored
        assert not any("secret-name" in name for name in engine.channels)


async def test_a_server_with_another_key_reports_messages_that_it_cannot_read():
    engine = ModelServer()
    async with (
        cluster(1, engine, keys=[bytes(32)]) as ((one,), _),
        cluster(1, engine, keys=[bytes([1]) * 32], first=2) as ((two,), _),
    ):
        await one.follow("live/a")
        await anyio.sleep(2)
        viewer = await two.follow("x/live/a")
        await anyio.sleep(2)
        upstream.write()
        await anyio.sleep(1)
        assert any(b"cannot be read: it is encrypted by another key" in p for p in viewer.packets)
        assert (await two.metrics())['aiostream_ds_dropped_total{reason="cluster"}'] > 0


@pytest.mark.parametrize(
    "others",
    [
        {"uid": "other"},
        {"settings": {"place": "elsewhere"}},
        {"secrets": {"token": "token-of-tests-2"}},
    ],
)
async def test_other_data_sources_and_settings_never_share(others):
    engine = ModelServer()
    async with (
        cluster(1, engine) as ((one,), _),
        cluster(1, engine, first=2, **others) as ((two,), _),
    ):
        viewers = [await server.follow("live/a") for server in (one, two)]
        await wait_for(lambda: upstream.running["live/a"] == 2)
        await anyio.sleep(2)
        upstream.write(2)
        await anyio.sleep(1)
        assert upstream.running["live/a"] == 2
        assert [numbers(viewer) for viewer in viewers] == [[1, 2], [1, 2]]


async def test_a_viewer_who_may_not_read_a_path_is_refused_on_each_server():
    viewer = User(login="v", role="Viewer")
    async with cluster(2) as (servers, _):
        await servers[0].follow("private/a")
        await wait_for(lambda: upstream.running["private/a"] == 1)
        for server in servers:
            for path in ("private/a", "x/private/a"):
                with pytest.raises(Refused):
                    await server.follow(path, viewer)
            page = await server.resource("replay/rows?path=private%2Fa&after=0", user=viewer)
            assert page.status == 403
            assert b"values" not in page.body
            public = await server.follow("live/a", viewer)  # another channel of the same source
            upstream.write()
            await anyio.sleep(1)
            assert all(row.keys() == {"time", "n"} for row in public.rows)


async def test_a_change_of_settings_moves_the_viewers_to_another_channel():
    async with cluster(2) as (servers, _):
        viewers = [await server.follow("live/a") for server in servers]
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        for server in servers:
            await server.change_settings({"place": "there"})
        await anyio.sleep(10)
        assert upstream.running["live/a"] == 1
        assert upstream.runs["live/a"] >= 2
        upstream.write(2)
        await anyio.sleep(1)
        assert [numbers(viewer) for viewer in viewers] == [[1, 2], [1, 2]]


@pytest.mark.slow
async def test_the_rows_of_a_slow_engine_are_sent_together():
    async with cluster(2) as (servers, engine):
        viewers = [await server.follow("live/a") for server in servers]
        await wait_for(lambda: upstream.running["live/a"] == 1)
        await anyio.sleep(2)
        before = engine.operations["append"]
        for _ in range(1000):
            upstream.write()
            await anyio.sleep(0)
        await wait_for(lambda: all(len(viewer.rows) == 1000 for viewer in viewers))
        assert engine.operations["append"] - before < 500


async def test_without_a_cluster_a_shared_stream_runs_for_its_server_and_this_is_logged_once(
    caplog,
):
    async with serve_in_memory(Shared) as grafana:
        viewer = await grafana.follow("live/a")
        await grafana.follow("live/b")
        await anyio.sleep(1)
        upstream.write()
        assert (await viewer.next())["n"] == 1
        _, message = await grafana.health()
        assert "streams are not shared: cluster_url is not set" in message
    texts = [r.getMessage() for r in caplog.records if "not shared" in r.getMessage()]
    assert len(texts) == 1


async def test_a_cluster_that_cannot_be_used_is_reported_and_streams_run():
    class Unfit(ModelEngine):
        async def open(self):
            from aiostream_ds import ConfigError

            raise ConfigError("the user may not XADD")

    def access() -> ClusterAccess:
        return ClusterAccess(Unfit(ModelServer()), "node")

    async with serve_in_memory(Shared, cluster=access) as grafana:
        viewer = await grafana.follow("live/a")
        await anyio.sleep(1)
        upstream.write()
        assert (await viewer.next())["n"] == 1
        _, message = await grafana.health()
        assert "streams are not shared: the user may not XADD" in message


async def test_streams_go_on_without_the_cluster_when_the_node_fails(caplog):
    class Failing(ModelEngine):
        async def nodes(self):
            if fails.is_set():
                raise LookupError("nodes")
            return await super().nodes()

    fails = anyio.Event()
    engine = ModelServer()

    def access() -> ClusterAccess:
        clock = asyncio.get_running_loop().time
        return ClusterAccess(Failing(engine), "node", None, NodeOptions(clock=clock))

    async with serve_in_memory(Shared, cluster=access) as grafana:
        before = await grafana.follow("lines/a")
        await anyio.sleep(1)
        upstream.write()
        await wait_for(lambda: numbers(before) == [1])
        fails.set()
        await wait_for(lambda: grafana.plugin.shared.problem)
        after = await grafana.follow("lines/b")
        await wait_for(lambda: upstream.running == {"lines/a": 1, "lines/b": 1})
        upstream.write()
        await wait_for(lambda: numbers(before) == [1, 2] and numbers(after)[-1:] == [2])
        _, message = await grafana.health()
        assert "not shared: the node of the cluster has failed: LookupError: nodes" in message
        assert not engine.connections and not engine.is_alive("node")
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info and "has failed" in record.getMessage()


class FailingEngine(ModelEngine):
    """Its client has a bug."""

    async def append(self, *arguments: object) -> None:
        raise ZeroDivisionError("a bug of the client")


async def test_what_ends_a_shared_stream_is_in_the_log_and_counted(caplog):
    def make_access() -> ClusterAccess:
        times = NodeOptions(clock=asyncio.get_running_loop().time)
        return ClusterAccess(FailingEngine(ModelServer(), seed=1), "node1", None, times)

    async with serve_in_memory(Shared, cluster=make_access) as grafana:
        await grafana.follow("live/a")
        await anyio.sleep(5)
        metrics = await grafana.metrics()
    found = [each for each in caplog.records if each.message == "a shared stream has failed"]
    assert found and found[0].path == "live/a"
    assert "a bug of the client" in str(found[0].exc_info[1])
    assert metrics['aiostream_ds_stream_errors_total{kind="bug"}'] >= len(found) - 1 > 0
