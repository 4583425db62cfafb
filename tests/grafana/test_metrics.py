"""CollectMetrics: counters, and gauges of the running streams."""

from contextlib import suppress
from typing import get_args

import anyio
import pytest
from grpclib import GRPCError

from aiostream_ds import Buffer, DataSource, NotFound, Query, UpstreamError, query, stream
from aiostream_ds._frames.frame import Frame
from aiostream_ds._grafana.metrics import Gauges, exposition
from aiostream_ds._telemetry import Counters, DropReason
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.grafana.calls import run_stream

pytestmark = pytest.mark.virtual


class Busy(DataSource):
    @stream("rows")
    async def rows(self):
        for n in range(10):
            yield {"n": n}
        await anyio.sleep_forever()

    @stream("flood", buffer=Buffer(rows=1))
    async def flood(self):
        yield {"n": -1}
        await anyio.sleep(1)
        for n in range(1000):
            yield {"n": n}
        await anyio.sleep_forever()

    @stream("down")
    async def down(self):
        raise UpstreamError("gone")
        yield

    @stream("lost")
    async def lost(self):
        raise NotFound("gone for good")
        yield

    @stream("bug")
    async def bug(self):
        raise KeyError("oops")
        yield

    @query
    async def ask(self, q: Query) -> Frame:
        raise NotFound("nothing")


DOCUMENTED = [
    "aiostream_ds_streams_running",
    "aiostream_ds_subscriptions",
    "aiostream_ds_packets_total",
    "aiostream_ds_bytes_total",
    "aiostream_ds_rows_total",
    "aiostream_ds_rows_dropped_total",
    'aiostream_ds_stream_errors_total{kind="transient"}',
    'aiostream_ds_stream_errors_total{kind="permanent"}',
    'aiostream_ds_stream_errors_total{kind="bug"}',
]


async def test_every_documented_metric_exists_from_the_start():
    async with serve_in_memory(Busy) as grafana:
        metrics = await grafana.metrics()
    assert {name: metrics.get(name) for name in DOCUMENTED} == dict.fromkeys(DOCUMENTED, 0)


async def test_counts_and_gauges_while_streams_run():
    async with serve_in_memory(Busy) as grafana:
        async with run_stream(grafana, "rows") as one, run_stream(grafana, "rows") as two:
            packet = (await one.recv_message()).data
            await two.recv_message()
            metrics = await grafana.metrics()
        await anyio.sleep(1)
        after = await grafana.metrics()
    assert metrics["aiostream_ds_streams_running"] == 1
    assert metrics["aiostream_ds_subscriptions"] == 2
    assert metrics["aiostream_ds_rows_total"] == 10
    assert 1 <= metrics["aiostream_ds_packets_total"] <= 10
    assert 0 < metrics["aiostream_ds_bytes_total"]
    assert b'"schema"' in packet
    assert after["aiostream_ds_streams_running"] == after["aiostream_ds_subscriptions"] == 0
    assert after["aiostream_ds_rows_total"] == 10


async def test_errors_are_counted_by_kind():
    async with serve_in_memory(Busy) as grafana:
        for path in ("down", "lost", "bug"):
            with suppress(GRPCError):
                async with run_stream(grafana, path):
                    await anyio.sleep(0.1)
        metrics = await grafana.metrics()
    for kind in ("transient", "permanent", "bug"):
        assert metrics[f'aiostream_ds_stream_errors_total{{kind="{kind}"}}'] == 1


async def test_calls_are_counted_by_endpoint_and_outcome():
    async with serve_in_memory(Busy) as grafana:
        for _ in range(2):
            with pytest.raises(QueryFailed):
                await grafana.query({"queryType": "ask"}, as_json=True)
        await grafana.health()
        metrics = await grafana.metrics()
    name = "aiostream_ds_requests_total"
    assert metrics[f'{name}{{endpoint="queryData",status="downstream"}}'] == 2
    assert metrics[f'{name}{{endpoint="checkHealth",status="ok"}}'] == 1
    total = 'aiostream_ds_request_duration_seconds_count{endpoint="queryData"}'
    assert metrics[total] == 2


async def test_there_are_metrics_of_the_process():
    async with serve_in_memory(Busy) as grafana:
        metrics = await grafana.metrics()
    assert any(name.startswith("python_info{") for name in metrics)
    assert metrics["process_resident_memory_bytes"] > 0


def test_everything_that_can_be_left_out_is_counted_in_the_metrics():
    counters = Counters()
    for number, reason in enumerate(get_args(DropReason)):
        counters.count_dropped(reason, 100 + number)
    text = exposition(Gauges(0, 0, {}, 0, 0), counters).decode()
    for number, reason in enumerate(get_args(DropReason)):
        assert f'aiostream_ds_dropped_total{{reason="{reason}"}} {100 + number}.0' in text
