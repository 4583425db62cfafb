"""How a stream is doing, as an exact view says it: `status` and `cursor`."""

import logging
import re
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
)  # fmt: skip
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


class Tick(Row):
    time: int
    n: int


class Troubled(DataSource):
    """Streams that are not always well."""

    @stream("flaky")
    async def flaky(self):
        for n in range(2):
            yield {"n": n}
        await anyio.sleep(1)
        if Troubled.failures:
            Troubled.failures -= 1
            raise UpstreamError("the broker hung up")
        await anyio.sleep_forever()

    failures = 0

    @stream("away")
    async def away(self):
        raise UpstreamError("nobody there")
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

    @stream("says")
    async def says(self):
        yield Status("warning", "calibrating")
        await anyio.sleep(5)
        yield {"n": 1}
        yield Status()
        yield {"n": 2}
        await anyio.sleep_forever()

    @stream("numbered", cursor="n")
    async def numbered(self, after: Cursor | None) -> Rows[Tick | Status]:
        yield Tick(time=1_700_000_000_000, n=1)
        yield Status("info", "replaying")
        await anyio.sleep_forever()

    @numbered.history
    async def past(self, history_range: HistoryRange) -> list[Tick]:
        return []

    @stream("flood", buffer=Buffer(rows=10))
    async def flood(self):
        while True:
            yield {"n": 1}


def said(viewer):
    """The texts of all `state` keys, None for live; packets without the key left out."""
    states = [msgspec.json.decode(p) for p in viewer.packets]
    found = [s["status"] for s in states if "status" in s]
    return [None if state is None else (state["severity"], state["text"]) for state in found]


async def test_a_live_stream_says_nothing():
    async with serve_in_memory(Troubled) as grafana:
        Troubled.failures = 0
        viewer = await grafana.follow("x/flaky")
        await anyio.sleep(10)
        assert said(viewer) == []
        newcomer = await grafana.follow("x/flaky")
        await anyio.sleep(1)
        assert said(newcomer) == []


async def test_an_outage_is_said_with_its_number_and_ends_with_the_first_row():
    async with serve_in_memory(Troubled) as grafana:
        Troubled.failures = 2
        viewer = await grafana.follow("x/flaky")
        await anyio.sleep(10)
        changes = [state for state, _ in groupby(said(viewer))]
        assert changes == [
            ("warning", "reconnecting (1)"), None, ("warning", "reconnecting (2)"), None,
        ]  # fmt: skip
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_stream_retries_total"] == 2


async def test_heartbeats_say_it_again_until_it_is_over():
    async with serve_in_memory(Troubled) as grafana:
        viewer = await grafana.follow("x/away")
        await anyio.sleep(0.3)
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_streams_degraded{status="reconnecting"}'] == 1
        await anyio.sleep(120)
        texts = [text for _, text in said(viewer)]
        assert texts[0] == "reconnecting (1)" and re.fullmatch(r"reconnecting \(\d+\)", texts[-1])
        metrics = await grafana.metrics()
        assert texts[-1] == f"reconnecting ({metrics['aiostream_ds_stream_retries_total']:.0f})"
        assert len(texts) > 50, "one each two seconds"
        assert len(viewer.packets) <= len(texts) + 2  # the hellos came before


async def test_a_lasting_error_is_said_to_those_who_come_later_too():
    async with serve_in_memory(Troubled) as grafana:
        first = await grafana.follow("x/refused")
        await anyio.sleep(60)
        assert said(first)[-1] == ("error", "no topic 'a b'")
        first.leave()
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_streams_degraded{status="refused"}'] == 1
        answer = await grafana.resource("replay/rows?path=x/refused&after=0")
        assert msgspec.json.decode(answer.body)["status"]["text"] == "no topic 'a b'"


async def test_silence_is_stale_after_the_time_that_the_author_gave():
    async with serve_in_memory(Troubled) as grafana:
        viewer = await grafana.follow("x/quiet")
        await anyio.sleep(9.9)
        assert said(viewer) == []
        await anyio.sleep(32.4)
        texts = [text for _, text in said(viewer)]
        assert texts[0] == "stale 10 s" and texts[-1] in ("stale 41 s", "stale 42 s")
        await anyio.sleep(1)
        assert said(viewer)[-1] is None


async def test_an_author_says_how_it_is_and_that_it_is_over():
    async with serve_in_memory(Troubled) as grafana:
        viewer = await grafana.follow("x/says")
        await anyio.sleep(20)
        assert set(said(viewer)[:-1]) == {("warning", "calibrating")} and said(viewer)[-1] is None


async def test_a_status_among_rows_with_a_cursor_takes_no_place():
    async with serve_in_memory(Troubled) as grafana:
        viewer = await grafana.follow("x/numbered")
        await anyio.sleep(5)
        assert set(said(viewer)) == {("info", "replaying")}
        assert viewer.position.value == 1
        stock = await grafana.follow("numbered")
        await anyio.sleep(5)
        assert stock.packets == [], "a status is no row of a stock panel"


async def test_drops_are_said_and_logged_once_an_episode(caplog):
    caplog.set_level(logging.WARNING)
    async with serve_in_memory(Troubled) as grafana:
        channel = grafana.plugin.registry.peek
        viewer = await grafana.follow("flood")
        await viewer.take(100)
        (key,) = grafana.plugin.registry._open
        reader = next(iter(channel(key)._subscriptions))
        for _ in range(5):
            reader._drop(len(reader._queue))
            channel(key).rows_dropped(3, 1)
        assert channel(key).status.text.startswith("dropped ")
    messages = [message for message in caplog.messages if "rows" in message]
    assert len([m for m in messages if m.endswith("rows are dropped")]) == 1
    assert len([m for m in messages if m.startswith("all subscribers have caught up")]) == 1
