"""The outage run: streams lose and double nothing; channels report every gap."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import RedisError

from aiostream_ds.sources.redis import Redis as Source
from tests.exact.hosts import open_node
from tests.exact.judge import Judge
from tests.servers import Proxy, Redis
from tests.sources.drawn_outages import BUILTIN, check_drawings
from tests.sources.outage_run import Write, run_outages, viewer_numbers

from .connecting import admin, encoded, serving, settings_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # 20,000 single messages


@asynccontextmanager
async def adding(server: Redis, *names: str) -> AsyncIterator[Write]:
    """Adds each number once to one of the streams: it looks for a write whose answer was lost."""
    newest = dict.fromkeys(names, -10_000_000)
    async with admin(server) as client:

        async def find_newest() -> None:
            for name in names:
                found = await client.xrevrange(name, count=1)
                newest[name] = int(found[0][1][b"n"]) if found else -10_000_000

        async def write(numbers: Sequence[int]) -> Sequence[int]:
            left = list(numbers)
            while left:
                try:
                    async with client.pipeline(transaction=True) as pipeline:
                        for number in left:
                            pipeline.xadd(names[number % len(names)], {"n": number})
                        await pipeline.execute()
                    left = []
                except (RedisError, OSError):
                    left = await unwritten(left)
            return numbers

        async def unwritten(numbers: list[int]) -> list[int]:
            while True:
                try:
                    await find_newest()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)
                    continue
                return [n for n in numbers if n > newest[names[n % len(names)]]]

        yield write


async def test_a_stream_loses_and_doubles_no_entry(server: Redis, client: Client):
    async with adding(server, "orders:eu") as write:
        with Proxy(server.port) as proxy:
            async with serving(server, port=proxy.port) as grafana:
                viewer = await grafana.follow(f"entries/{encoded('orders:eu')}")
                outcome = await run_outages(write, viewer_numbers(viewer), server.restart, proxy)
                metrics = await grafana.metrics()
                assert metrics["aiostream_ds_stream_retries_total"] >= 3
                assert metrics["aiostream_ds_gaps_total"] == 0
    assert outcome.is_exact, outcome


async def test_several_streams_lose_and_double_no_entry(server: Redis, client: Client):
    names = ["orders:eu", "orders:us", "orders:asia"]
    async with adding(server, *names) as write:
        with Proxy(server.port) as proxy:
            async with serving(server, port=proxy.port) as grafana:
                viewer = await grafana.follow(f"streams/{encoded(','.join(names))}")

                def received() -> list[int]:
                    found = [v for row in viewer.rows for k, v in row.items() if k != "time"]
                    return sorted(int(value) for value in found if value is not None)

                await write([-3_000_002, -3_000_001, -3_000_000])
                outcome = await run_outages(write, received, server.restart, proxy)
    assert outcome.is_exact, outcome


async def test_every_message_that_a_channel_loses_is_in_a_gap_that_is_reported(
    server: Redis, client: Client
):
    times: dict[int, tuple[int, int]] = {}  # before and after each was published
    async with admin(server) as writer:

        async def write(numbers: Sequence[int]) -> Sequence[int]:
            """Publish; what a server that is away does not take is not published."""
            taken = []
            for number in numbers:
                begin = now()
                try:
                    await writer.publish("news", json.dumps({"n": number}))
                except (RedisError, OSError):
                    continue
                times[number] = begin, now()
                taken.append(number)
            return taken

        with Proxy(server.port) as proxy:
            async with serving(server, port=proxy.port) as grafana:
                viewer = await grafana.follow(f"channel/{encoded('news')}")
                outcome = await run_outages(write, viewer_numbers(viewer), server.restart, proxy)
                source = await grafana.data_source(Source)
                gaps = source._gaps.details()
                metrics = await grafana.metrics()
    assert outcome.doubled == outcome.out_of_order == outcome.unknown == 0, outcome
    assert len(outcome.gaps) == 3 and metrics["aiostream_ds_gaps_total"] == len(gaps) == 3
    for (first, last), gap in zip(outcome.gaps, gaps, strict=True):
        assert gap["from"] <= times[first][1] and times[last][0] <= gap["to"]


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.go
async def test_a_stream_under_the_go_host_loses_and_doubles_no_entry(
    server: Redis, client: Client, host_binary: Path
):
    numbers: list[int] = []
    names: list[str] = []

    def receive(packet: dict[str, Any]) -> None:
        if "schema" in packet:
            names[:] = [field["name"] for field in packet["schema"]["fields"]]
        if names and packet.get("data", {}).get("values"):
            numbers.extend(map(int, packet["data"]["values"][names.index("n")]))

    with Proxy(server.port) as proxy:
        settings = settings_for(server, source="redis", port=proxy.port)
        secrets = {"password": server.reader_password}
        command = [sys.executable, "-c", BUILTIN]
        async with (
            adding(server, "orders:eu") as write,
            open_node(host_binary, command, settings, secrets) as node,
        ):
            await node.subscribe(f"entries/{encoded('orders:eu')}", receive)
            outcome = await run_outages(write, lambda: numbers, server.restart, proxy)
            assert node.starts == 1
    assert outcome.is_exact, outcome


@pytest.mark.go
async def test_an_exact_panel_draws_each_entry_once_over_cuts_and_restarts(
    server: Redis, client: Client, host_binary: Path
):
    judge = Judge(lambda panel, drawing: range(len(drawing.rows)))
    query = {"queryType": "entries", "stream": "orders:eu", "exact": True}
    secrets = {"password": server.reader_password}
    with Proxy(server.port) as proxy:
        settings = settings_for(server, source="redis", port=proxy.port)
        async with adding(server, "orders:eu") as write:
            await check_drawings(host_binary, server, proxy, settings, secrets, query, judge, write)
