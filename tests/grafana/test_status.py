"""The status of a stream in the packets of its exact channel."""

import logging
from itertools import groupby

import anyio
import msgspec
import pytest

from aiostream_ds import (
    BadQuery,
    Buffer,
    Cursor,
    DataSource,
    HistoryRange,
    Row,
    Rows,
    Status,
    UpstreamError,
    stream,
)
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


class Tick(Row):
    time: int
    n: int


class Degraded(DataSource):
    """Streams that are not always healthy."""

    @stream("flaky")
    async def flaky(self):
        for n in range(2):
            yield {"n": n}
        await anyio.sleep(1)
        if Degraded.failures:
            Degraded.failures -= 1
            raise UpstreamError("the broker closed the connection")
        await anyio.sleep_forever()

    failures = 0

    @stream("away")
    async def away(self):
        raise UpstreamError("connection refused")
        yield {}

    @stream("refused")
    async def refused(self):
        yield {"n": 1}
        raise BadQuery("no topic 'a b'")

    @stream("quiet", stale=10)
    async def quiet(self):
        yield {"n": 1}
        await anyio.sleep(42.5)
        yield {"n": 2}
        await anyio.sleep_forever()

    @stream("manual")
    async def manual(self):
        yield Status("warning", "calibrating")
        await anyio.sleep(5)
        yield {"n": 1}
        yield Status()
        yield {"n": 2}
        await anyio.sleep_forever()

    @stream("numbered", cursor="n")
    async def numbered(self, after: Cursor) -> Rows[Tick | Status]:
        yield Tick(time=1_700_000_000_000, n=0)
        yield Status("info", "replaying")
        await anyio.sleep_forever()

    @numbered.history
    async def read(self, history_range: HistoryRange) -> list[Tick]:
        return []

    @stream("flood", buffer=Buffer(rows=10))
    async def flood(self):
        while True:
            yield {"n": 1}


def statuses(viewer):
    """Severity and text of each `status`, None for healthy, of the packets that have one."""
    packets = [msgspec.json.decode(packet) for packet in viewer.packets]
    found = [packet["status"] for packet in packets if "status" in packet]
    return [None if status is None else (status["severity"], status["text"]) for status in found]


async def test_a_healthy_stream_sends_no_status():
    async with serve_in_memory(Degraded) as grafana:
        Degraded.failures = 0
        viewer = await grafana.follow("x/flaky")
        await anyio.sleep(10)
        assert statuses(viewer) == []
        later = await grafana.follow("x/flaky")
        await anyio.sleep(1)
        assert statuses(later) == []


async def test_an_outage_is_a_status_with_its_attempt_that_the_first_row_clears():
    async with serve_in_memory(Degraded) as grafana:
        Degraded.failures = 2
        viewer = await grafana.follow("x/flaky")
        await anyio.sleep(10)
        changes = [status for status, _ in groupby(statuses(viewer))]
        assert changes == [
            ("warning", "reconnecting (1): the broker closed the connection"),
            None,
            ("warning", "reconnecting (2): the broker closed the connection"),
            None,
        ]
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_stream_retries_total"] == 2


async def test_heartbeats_repeat_the_status_until_the_stream_is_healthy():
    async with serve_in_memory(Degraded) as grafana:
        viewer = await grafana.follow("x/away")
        await anyio.sleep(0.3)
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_streams_degraded{status="reconnecting"}'] == 1
        await anyio.sleep(120)
        texts = [text for _, text in statuses(viewer)]
        assert texts[0] == "reconnecting (1): connection refused"
        metrics = await grafana.metrics()
        retries = f"{metrics['aiostream_ds_stream_retries_total']:.0f}"
        assert texts[-1] == f"reconnecting ({retries}): connection refused"
        assert len(texts) > 50, "one every two seconds"
        assert len(viewer.packets) <= len(texts) + 2  # the hellos have none


async def test_a_permanent_error_is_sent_to_later_subscribers_too():
    async with serve_in_memory(Degraded) as grafana:
        first = await grafana.follow("x/refused")
        await anyio.sleep(60)
        assert statuses(first)[-1] == ("error", "no topic 'a b'")
        first.leave()
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_streams_degraded{status="refused"}'] == 1
        answer = await grafana.resource("replay/rows?path=x/refused&after=0")
        assert msgspec.json.decode(answer.body)["status"]["text"] == "no topic 'a b'"


async def test_a_silent_stream_is_stale_after_the_configured_time():
    async with serve_in_memory(Degraded) as grafana:
        viewer = await grafana.follow("x/quiet")
        await anyio.sleep(9.9)
        assert statuses(viewer) == []
        await anyio.sleep(32.4)
        texts = [text for _, text in statuses(viewer)]
        assert texts[0] == "stale 10 s" and texts[-1] in ("stale 41 s", "stale 42 s")
        await anyio.sleep(1)
        assert statuses(viewer)[-1] is None


async def test_an_author_sets_and_clears_the_status():
    async with serve_in_memory(Degraded) as grafana:
        viewer = await grafana.follow("x/manual")
        await anyio.sleep(20)
        assert (
            set(statuses(viewer)[:-1]) == {("warning", "calibrating")}
            and statuses(viewer)[-1] is None
        )


async def test_a_status_between_rows_has_no_cursor():
    async with serve_in_memory(Degraded) as grafana:
        viewer = await grafana.follow("x/numbered")
        await anyio.sleep(5)
        assert set(statuses(viewer)) == {("info", "replaying")}
        assert viewer.position.value == 0
        stock = await grafana.follow("numbered")
        await anyio.sleep(5)
        assert stock.packets == [], "a status is not a row of a stock panel"


async def test_dropped_rows_are_a_status_and_are_logged_once(caplog):
    caplog.set_level(logging.WARNING)
    async with serve_in_memory(Degraded) as grafana:
        channel = grafana.plugin.registry.peek
        viewer = await grafana.follow("flood")
        await viewer.take(100)
        (key,) = grafana.plugin.registry._open
        reader = next(iter(channel(key)._subscriptions))
        for _ in range(5):
            reader._drop(len(reader.queue))
            channel(key).rows_dropped(3, 1)
        assert channel(key).status.text.startswith("dropped ")
    messages = [message for message in caplog.messages if "rows" in message]
    assert len([m for m in messages if m.endswith("rows are dropped")]) == 1
    assert len([m for m in messages if m.startswith("all subscribers have caught up")]) == 1
