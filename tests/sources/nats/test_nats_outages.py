"""The outage run: streams lose and double nothing; subjects report every gap."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds import PluginError
from aiostream_ds.sources.nats import Nats as Source
from tests.exact.hosts import open_node
from tests.exact.judge import Judge
from tests.servers import Proxy
from tests.servers.nats import nats_cluster
from tests.sources.drawn_outages import BUILTIN, check_drawings
from tests.sources.outage_run import run_outages

from .connecting import (
    NatsToRead,
    Publisher,
    encoded_payload,
    first_row,
    messages_of,
    number_of,
    numbers,
    publishing,
    serving,
    settings_for,
    status_texts,
    subjects_of,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # 20,000 single messages


def storing(publisher: Publisher, *subjects: str):
    """Stores each number once, in one of the subjects."""

    async def write(written: Sequence[int]) -> Sequence[int]:
        for index, subject in enumerate(subjects):
            mine = [n for n in written if n % len(subjects) == index]
            await publisher.store(*mine, subject=subject)
        return written

    return write


async def test_a_stream_loses_and_doubles_no_message(server: NatsToRead, publisher: Publisher):
    write = storing(publisher, "orders.eu")
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(messages_of())
            outcome = await run_outages(write, lambda: numbers(viewer), server.restart, proxy)
            metrics = await grafana.metrics()
            assert metrics["aiostream_ds_stream_retries_total"] >= 3
            assert metrics["aiostream_ds_gaps_total"] == 0
    assert outcome.is_exact, outcome


async def test_some_subjects_of_a_stream_lose_and_double_no_message(
    server: NatsToRead, publisher: Publisher
):
    write = storing(publisher, "orders.eu.new", "orders.us.new")
    other = storing(publisher, "orders.eu.old")

    async def write_both(written: Sequence[int]) -> Sequence[int]:
        await other(written[::5])
        return await write(written)

    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(messages_of("ORDERS", "orders.{region}.new"))
            outcome = await run_outages(
                write_both, lambda: sorted(numbers(viewer)), server.restart, proxy
            )
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0
    assert outcome.is_exact, outcome


async def test_a_stream_with_copies_goes_on_at_another_server_of_the_cluster():
    stored = 0
    with nats_cluster() as nodes:
        config = {"name": "ORDERS", "subjects": ["orders.>"], "num_replicas": 3}
        answer = nodes[0].call("$JS.API.STREAM.CREATE.ORDERS", encoded_payload(config))
        assert "error" not in answer, answer
        servers = ", ".join(f"nats://127.0.0.1:{node.port}" for node in nodes)
        admin = nodes[0]
        async with (
            publishing(*nodes) as publisher,
            serving(admin, admin.password, servers=servers, user=admin.admin) as grafana,
        ):
            viewer = await grafana.follow(messages_of())
            await first_row(viewer, lambda n: publisher.store(-1 - n))
            link = (await grafana.data_source(Source))._link
            port = link._connection.server.port

            async def store(count: int) -> None:
                nonlocal stored
                for _ in range(count):
                    await publisher.store(stored)
                    stored += 1

            await store(100)
            await asyncio.to_thread(next(node for node in nodes if node.port == port).kill)
            await store(100)
            await until(lambda: stored - 1 in numbers(viewer), 60)
            assert [n for n in numbers(viewer) if n >= 0] == list(range(stored))
            assert link._connection.server.port != port
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0


async def test_a_stream_is_read_whose_consumers_must_have_copies():
    with nats_cluster() as nodes:
        config = {"subjects": ["orders.>"], "num_replicas": 3, "retention": "interest"}
        arguments = encoded_payload({"name": "ORDERS"} | config)
        answer = nodes[0].call("$JS.API.STREAM.CREATE.ORDERS", arguments)
        assert "error" not in answer, answer
        admin = nodes[0]
        async with (
            publishing(*nodes) as publisher,
            serving(admin, admin.password, user=admin.admin) as grafana,
        ):
            viewer = await grafana.follow(f"x/{messages_of()}")
            await first_row(viewer, lambda n: publisher.store(n))  # is stored for readers only


async def test_every_message_that_a_subject_loses_is_in_a_gap_that_is_reported(
    server: NatsToRead, publisher: Publisher
):
    times: dict[int, tuple[int, int]] = {}  # before and after each was published

    async def write(written: Sequence[int]) -> Sequence[int]:
        """Publish; what a server that is away does not take is not published."""
        taken = []
        for number in written:
            begin = now()
            try:
                await publisher.publish("n", {"n": number})
            except PluginError:
                continue
            times[number] = begin, now()
            taken.append(number)
        return taken

    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(f"x/{subjects_of('n')}")
            outcome = await run_outages(write, lambda: numbers(viewer), server.restart, proxy)
            gaps = (await grafana.data_source(Source))._gaps.details()
            metrics = await grafana.metrics()
            texts = status_texts(viewer)
    assert outcome.doubled == outcome.out_of_order == 0, outcome
    assert len(outcome.gaps) == 3 and metrics["aiostream_ds_gaps_total"] == len(gaps) == 3
    for (first, last), gap in zip(outcome.gaps, gaps, strict=True):
        assert gap["from"] <= times[first][1] and times[last][0] <= gap["to"]
        assert gap["text"] in texts


def now() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.go
async def test_a_stream_under_the_go_host_loses_and_doubles_no_message(
    server: NatsToRead, publisher: Publisher, host_binary: Path
):
    received: list[int] = []
    names: list[str] = []

    def receive(packet: dict[str, Any]) -> None:
        if "schema" in packet:
            names[:] = [field["name"] for field in packet["schema"]["fields"]]
        if names and packet.get("data", {}).get("values"):
            received.extend(map(int, packet["data"]["values"][-1]))

    write = storing(publisher, "orders.eu")
    with Proxy(server.port) as proxy:
        settings = settings_for(server, source="nats", port=proxy.port)
        secrets = {"password": server.user_password}
        command = [sys.executable, "-c", BUILTIN]
        async with open_node(host_binary, command, settings, secrets) as node:
            await node.subscribe(messages_of(), receive)
            outcome = await run_outages(write, lambda: received, server.restart, proxy)
            assert node.starts == 1
    assert outcome.is_exact, outcome


@pytest.mark.go
async def test_an_exact_panel_draws_each_message_once_over_cuts_and_restarts(
    server: NatsToRead, publisher: Publisher, host_binary: Path
):
    judge = Judge(lambda panel, drawing: range(len(drawing.rows)), column=number_of())
    query = {"queryType": "messages", "stream": "ORDERS", "exact": True}
    secrets = {"password": server.user_password}
    write = storing(publisher, "orders.eu")
    with Proxy(server.port) as proxy:
        settings = settings_for(server, source="nats", port=proxy.port)
        await check_drawings(host_binary, server, proxy, settings, secrets, query, judge, write)
