"""Scripted faults of the upstream system."""

import logging

import anyio
import msgspec
import pytest

from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.faults import (
    Burst,
    Disconnect,
    HalfMessage,
    Hang,
    InvalidMessage,
    Missed,
    Refuse,
    Rows,
    ScriptedSource,
    ScriptedUpstream,
)

pytestmark = pytest.mark.virtual


def source(*script):
    class Scripted(ScriptedSource):
        upstream = ScriptedUpstream(*script)

    return Scripted


async def follow_exactly(grafana, path="x/numbers"):
    """An exact viewer with the frame of its query."""
    (frame,) = await grafana.query({"queryType": "numbers", "exact": True})
    return await grafana.follow(path, frame=frame), len(frame.fields[0].values)


def statuses(viewer):
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [message["status"] for message in found if "status" in message]


FAULTS = [Refuse(), Disconnect(), HalfMessage(), InvalidMessage()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_fault_loses_no_row_and_is_a_status(fault):
    kind = source(Rows(3), *([] if fault != Refuse() else [Disconnect()]), fault, Rows(3))
    async with serve_in_memory(kind) as grafana:
        viewer, _ = await follow_exactly(grafana)
        await anyio.sleep(20)
        numbers = [row["n"] for row in viewer.rows]
        assert numbers == [message.n for message in kind.upstream.log] and len(numbers) >= 6
        shown = [status["text"] for status in statuses(viewer) if status is not None]
        assert shown[0].startswith("reconnecting (1): ") and not shown[0].endswith(": ")
        assert statuses(viewer)[-1] is None
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_stream_starts_total"] == 1
        assert metrics["aiostream_ds_streams_running"] == 1


@pytest.mark.slow
async def test_a_hundred_disconnects_lose_no_row_that_can_be_read_again(caplog):
    caplog.set_level(logging.WARNING)
    script = []
    for round in range(100):
        script += [Rows(round % 5, every=0.5), Missed(round % 7), Disconnect()]
    kind = source(*script, Rows(3, every=1))
    async with serve_in_memory(kind) as grafana:
        viewer, _ = await follow_exactly(grafana)
        stock = await grafana.follow("numbers")
        await anyio.sleep(3600)
        log = [message.n for message in kind.upstream.log]
        assert [row["n"] for row in viewer.rows] == log, "each row once, in order"
        assert [row["n"] for row in stock.rows] == log
        metrics = await grafana.metrics()
    assert metrics["aiostream_ds_stream_starts_total"] == 1, "one run throughout"
    assert metrics["aiostream_ds_stream_retries_total"] == 100
    assert metrics['aiostream_ds_stream_errors_total{kind="transient"}'] == 100
    assert metrics["aiostream_ds_rows_filled_total"] == sum(n % 7 for n in range(100))
    assert metrics["aiostream_ds_rows_dropped_total"] == 0
    assert kind.upstream.connects == 101 and kind.upstream.open == 0
    assert len([m for m in caplog.messages if m.startswith("stream interrupted")]) == 100
    shown = [status["text"] for status in statuses(viewer) if status is not None]
    attempts = [text.partition(":")[0] for text in shown]
    assert list(dict.fromkeys(attempts)) == [f"reconnecting ({n})" for n in range(1, 101)]


async def test_only_rows_that_cannot_be_read_again_are_lost():
    kind = source(Rows(5), Missed(4), Disconnect(), Rows(5))
    async with serve_in_memory(kind) as grafana:
        viewer = await grafana.follow("live")
        await anyio.sleep(5)
        assert [row["n"] for row in viewer.rows] == [1, 2, 3, 4, 5, 10, 11, 12, 13, 14]


async def test_a_long_gap_is_filled_page_by_page(monkeypatch):
    monkeypatch.setattr("aiostream_ds._grafana.stream_runs.REPLAY_ROWS", 50)
    kind = source(Rows(1), Missed(175), Disconnect(), Rows(1))
    async with serve_in_memory(kind) as grafana:
        viewer, _ = await follow_exactly(grafana)
        await anyio.sleep(5)
        assert [row["n"] for row in viewer.rows] == list(range(1, 178))
        assert (await grafana.metrics())["aiostream_ds_rows_filled_total"] == 175


@pytest.mark.slow
async def test_a_long_gap_loses_no_row_of_a_stock_viewer_that_keeps_up():
    kind = source(Rows(1), Missed(30_000), Disconnect(), Rows(1))
    async with serve_in_memory(kind) as grafana:
        viewer = await grafana.follow("numbers")
        await anyio.sleep(10)
        assert [row["n"] for row in viewer.rows] == list(range(1, 30_003))
        assert (await grafana.metrics())["aiostream_ds_rows_dropped_total"] == 0


async def test_a_hanging_upstream_connection_is_closed_after_the_last_viewer():
    kind = source(Hang())
    async with serve_in_memory(kind) as grafana:
        viewer = await grafana.follow("live")
        await anyio.sleep(60)
        assert kind.upstream.open == 1 and viewer.rows == []
        viewer.leave()
        await anyio.sleep(20)
        assert kind.upstream.open == 0


@pytest.mark.slow
async def test_rows_of_a_flood_are_received_or_counted_as_dropped():
    kind = source(Burst(50_000))
    async with serve_in_memory(kind) as grafana:
        viewer = await grafana.follow("live")
        await anyio.sleep(30)
        metrics = await grafana.metrics()
        dropped = metrics["aiostream_ds_rows_dropped_total"]
        assert len(viewer.rows) + dropped == metrics["aiostream_ds_rows_total"] == 50_000


async def test_the_health_check_reports_the_upstream_error():
    kind = source(Refuse())
    async with serve_in_memory(kind) as grafana:
        assert await grafana.health() == (False, "the upstream system failed: connection refused")
        assert (await grafana.health())[0]
