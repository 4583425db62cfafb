"""Prometheus text for CollectMetrics: what has been counted, and what runs at this moment.

The core counts; this file only names and renders. prometheus-client is imported when first asked.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.status import Cause
from aiostream_ds._telemetry import Counters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Gauges", "exposition"]


class Gauges(NamedTuple):
    """What the registry holds at one moment."""

    running: int
    subscriptions: int
    causes: Mapping[str, int]

    @classmethod
    def of(cls, registry: ChannelRegistry) -> Self:
        """The gauges of now."""
        return cls(registry.running, registry.subscriptions, registry.causes)


def exposition(gauges: Gauges, counters: Counters) -> bytes:
    """The text that Grafana passes on at /metrics/plugins/<id>. Reads files: call it in a thread,
    with gauges that were taken in the loop's."""
    from prometheus_client import (
        CollectorRegistry,
        GCCollector,
        PlatformCollector,
        ProcessCollector,
        generate_latest,
    )

    class Collector:
        def collect(self) -> "Iterator[Metric]":
            return _families(gauges, counters)

    found = CollectorRegistry()
    found.register(Collector())
    ProcessCollector(registry=found)
    PlatformCollector(registry=found)
    GCCollector(registry=found)
    return generate_latest(found)


def _families(gauges: Gauges, counters: Counters) -> "Iterator[Metric]":
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    def counter(name: str, text: str, value: int) -> Any:
        return CounterMetricFamily(f"aiostream_ds_{name}", text, value=value)

    def gauge(name: str, text: str, value: int) -> Any:
        return GaugeMetricFamily(f"aiostream_ds_{name}", text, value=value)

    yield gauge("streams_running", "Running streams: one for each channel.", gauges.running)
    yield gauge("subscriptions", "RunStream calls that read a channel now.", gauges.subscriptions)
    troubled = GaugeMetricFamily(
        "aiostream_ds_streams_troubled",
        "Running streams that are not plainly live, by what their viewers are told.",
        labels=["status"],
    )
    for cause in get_args(Cause):
        troubled.add_metric([cause], gauges.causes.get(cause, 0))
    yield troubled
    yield counter("stream_starts", "Runs of stream methods.", counters.starts)
    yield counter("packets", "Packets emitted into channels.", counters.packets)
    yield counter("bytes", "Bytes of those packets' data.", counters.bytes)
    yield counter("rows", "Rows of those packets.", counters.rows)
    yield counter("rows_dropped", "Rows that slow readers never got.", counters.rows_dropped)
    yield counter("drop_episodes", "Times a reader fell behind.", counters.drop_episodes)
    yield counter("stream_retries", "Restarts after a UpstreamError.", counters.retries)
    yield counter("rows_filled", "Rows of outages, read by histories.", counters.rows_filled)
    yield counter("refusals", "Subscriptions refused by a quota.", counters.refusals)
    yield counter(
        "rate_limited_connections",
        "Connections closed because the host exceeded a rate limit.",
        counters.rate_limited,
    )
    yield counter("streams_stuck", "Streams that did not end when asked.", counters.stuck)
    errors = CounterMetricFamily(
        "aiostream_ds_stream_errors", "Failed runs of stream methods.", labels=["kind"]
    )
    for kind in ("downstream", "permanent", "bug"):
        errors.add_metric([kind], counters.stream_errors.get(kind, 0))
    yield errors
    dropped = CounterMetricFamily(
        "aiostream_ds_dropped",
        "Left out by a stream's rules: late and duplicate rows, conflicting values and so on.",
        labels=["reason"],
    )
    for reason in ("late", "duplicate", "columns", "conflict", "series", "upstream"):
        dropped.add_metric([reason], counters.dropped.get(reason, 0))
    yield dropped
    requests = CounterMetricFamily(
        "aiostream_ds_requests", "Calls that Grafana made.", labels=["endpoint", "status"]
    )
    for (endpoint, status), count in tuple(counters.requests.items()):
        requests.add_metric([endpoint, status], count)
    yield requests
    durations = HistogramMetricFamily(
        "aiostream_ds_request_duration_seconds", "How long they took.", labels=["endpoint"]
    )
    for endpoint, counts, total in counters.durations():
        bounds = [*map(str, Counters.BUCKETS), "+Inf"]
        sums = [sum(counts[: i + 1]) for i in range(len(counts))]
        durations.add_metric([endpoint], list(zip(bounds, sums, strict=True)), total)
    yield durations
