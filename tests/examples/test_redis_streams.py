"""The Redis Streams example with a real Redis, which is killed and started again."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from aiostream_ds._grafana.application import background_tasks
from aiostream_ds.testing import Viewer, serve_in_memory
from tests.exact.client import Tab
from tests.exact.hosts import open_node
from tests.exact.judge import Judge
from tests.exact.network import Network
from tests.servers import Redis

from .loading import EXAMPLES, load

redis_streams = load("redis_streams")
QUERY = {"queryType": "entries", "name": "orders", "exact": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as running:
        yield running


def serving(server: Redis, password: str = Redis.password):
    settings = {"url": f"redis://127.0.0.1:{server.port}"}
    return serve_in_memory(
        redis_streams.RedisStreams, settings=settings, secrets={"password": password}
    )


@asynccontextmanager
async def writing(server: Redis) -> AsyncIterator[Client]:
    async with Client.from_url(server.url) as client:
        await client.delete("orders")
        yield client


async def add(client: Client, number: int) -> None:
    """Add an entry once: a write whose answer was lost is looked for before it is repeated."""
    while True:
        with suppress(RedisError, OSError):
            newest = await client.xrevrange("orders", count=1)
            if not newest or int(newest[0][1][b"n"]) < number:
                await client.xadd("orders", {"n": number})
            return
        await asyncio.sleep(0.02)


async def first_number(client: Client, viewer: Viewer) -> int:
    """Add entries until the stream runs and the viewer gets one; returns its number."""
    number = 0
    while not viewer.rows:
        with suppress(RedisError, OSError):  # of a connection to a server that was ended
            await client.xadd("orders", {"n": number, "side": "sell"})
        number += 1
        await asyncio.sleep(0.02)
    return int((await viewer.next())["n"])


async def test_entries_of_one_millisecond_are_all_rows(server: Redis):
    async with writing(server) as client, serving(server) as grafana:
        pipeline = client.pipeline()
        for number in range(100):
            pipeline.xadd("orders", {"n": number, "side": "buy"})
        ids = await pipeline.execute()
        assert len({id.split(b"-")[0] for id in ids}) < 100
        (frame,) = await grafana.query(QUERY)
        viewer = await grafana.follow("x/entries/orders", frame=frame)
        await first_number(client, viewer)
    columns = {field.name: list(field.values) for field in frame.fields}
    assert columns["n"] == list(range(100)) and set(columns["side"]) == {"buy"}
    assert viewer.rows[0]["side"] == "sell"


async def test_fields_of_an_entry_do_not_replace_its_id_and_time(server: Redis):
    async with writing(server) as client, serving(server) as grafana:
        id = (await client.xadd("orders", {"time": "noon", "id": "7", "n": "1.5"})).decode()
        (frame,) = await grafana.query(QUERY)
    columns = {field.name: list(field.values) for field in frame.fields}
    assert columns == {"time": [int(id.split("-")[0])], "id": [id], "n": [1.5]}


async def test_ids_of_one_millisecond_are_ordered_by_their_numbers(server: Redis):
    async with writing(server) as client, serving(server) as grafana:
        for number in (9, 10):
            await client.xadd("orders", {"n": number}, id=f"1700000000000-{number}")
        missed = await grafana.resource(
            "replay/rows?path=x/entries/orders&after=0001700000000000-0000000000000009"
        )
    assert b'"1700000000000-10"' in missed.body and b'"1700000000000-9"' not in missed.body


@pytest.mark.slow
async def test_no_entry_is_lost_or_doubled_while_redis_is_killed_twice(server: Redis):
    count = 1_000

    async def write(client: Client) -> None:
        for number in range(1_000, 1_000 + count):
            if number % 500 == 250:
                await asyncio.to_thread(server.restart)
            await add(client, number)

    async with writing(server) as client, serving(server) as grafana:
        viewer = await grafana.follow("entries/orders")
        await first_number(client, viewer)
        writer = asyncio.create_task(write(client))
        while (row := await viewer.next())["n"] < 1_000:
            pass
        rows = [row, *await viewer.take(count - 1, timeout=60)]
        await writer
    assert [row["n"] for row in rows] == list(range(1_000, 1_000 + count))


@pytest.mark.go
@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_a_panel_under_the_go_host_has_each_entry_once_while_redis_and_the_plugin_are_killed(
    server: Redis, host_binary: Path
):
    written = 0
    judge = Judge(lambda panel, drawing: range(len(drawing.rows)))
    command = [sys.executable, EXAMPLES / "redis_streams.py"]
    settings = {"url": f"redis://127.0.0.1:{server.port}"}
    secrets = {"password": server.password}

    async def write(client: Client, count: int) -> None:
        nonlocal written
        for _ in range(count):
            await add(client, written)
            written += 1

    async with (
        writing(server) as client,
        open_node(host_binary, command, settings, secrets) as node,
        background_tasks() as tasks,
    ):
        await write(client, 100)
        panel = Tab(Network([node]), tasks).open(QUERY, width=3_600, on_draw=judge)

        async def drawn() -> None:
            while len(panel.rows) < written:
                await anyio.sleep(0.02)

        await drawn()  # the query
        await write(client, 100)
        await drawn()  # live
        for end in (partial(asyncio.to_thread, server.restart), node.kill):
            async with anyio.create_task_group() as both:
                both.start_soon(write, client, 200)
                both.start_soon(end)
            await drawn()
        assert not judge.wrong and len(panel.rows) == written and not panel.faults
        assert not [fault for check in node.checks for fault in check.faults]


async def test_a_trimmed_stream_is_reported(server: Redis):
    async with writing(server) as client, serving(server) as grafana:
        for number in range(10):
            await add(client, number)
        (frame,) = await grafana.query(QUERY)
        first = frame.meta.custom["cursor"]["last"]
        for number in range(10, 20):
            await add(client, number)
        await client.xtrim("orders", maxlen=5, approximate=False)
        missed = await grafana.resource(f"replay/rows?path=x/entries/orders&after={first}")
    assert b'"truncated":true' in missed.body


async def test_save_and_test_dials(server: Redis):
    async with serving(server) as grafana:
        is_healthy, text = await grafana.health()
        assert is_healthy and text.startswith("connected to Redis ")
    async with serving(server, "wrong") as grafana:
        is_healthy, text = await grafana.health()
        assert not is_healthy and text.startswith("RedisStreams: invalid username-password pair")


@pytest.mark.slow
async def test_a_stream_waits_for_a_server_that_is_away(server: Redis):
    async with writing(server) as client, serving(server) as grafana:
        await add(client, 0)
        server.stop()
        try:
            is_healthy, text = await grafana.health()
            assert not is_healthy and text.startswith("RedisStreams: Error ")
        finally:
            server.start()
        await first_number(client, await grafana.follow("entries/orders"))
