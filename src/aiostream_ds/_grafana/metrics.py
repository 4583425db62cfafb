"""Renders the counters and gauges in the Prometheus text format, for CollectMetrics.

prometheus-client is imported at the first call.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args

from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.status import Cause
from aiostream_ds._cluster.node import NodeState
from aiostream_ds._cluster.sharing import Role
from aiostream_ds._telemetry import Counters, DropReason, ErrorKind, PushOutcome

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from aiostream_ds._grafana.shared_streams import SharedStreams

__all__ = ["ClusterGauges", "Gauges", "exposition"]


class ClusterGauges(NamedTuple):
    """The numbers of this node of a cluster at one moment.

    `roles` counts the channels by role, `lag` is the largest number of messages that one of them
    has not received, and `upstreams` counts the streams that run here for the whole cluster.
    """

    state: NodeState
    roles: Mapping[str, int]
    lag: int
    upstreams: int

    @classmethod
    def of(cls, shared: "SharedStreams | None") -> "ClusterGauges | None":
        """The current values; None without a cluster."""
        if shared is None or shared.problem:
            return None
        channels = shared.node.channels().values()
        roles = Counter(channel.role.value for channel in channels)
        lag = max((channel.lag for channel in channels), default=0)
        return cls(shared.node.state, roles, lag, shared.inner.running)


class Gauges(NamedTuple):
    """The registry's numbers at one moment."""

    running: int
    subscriptions: int
    degraded: Mapping[str, int]
    queue_bytes: int
    queue_limit: int
    cluster: ClusterGauges | None = None

    @classmethod
    def of(cls, registry: ChannelRegistry, shared: "SharedStreams | None" = None) -> Self:
        """The current values."""
        memory = registry.memory
        return cls(
            registry.running,
            registry.subscriptions,
            registry.degraded,
            memory.used,
            memory.limit,
            ClusterGauges.of(shared),
        )


def exposition(gauges: Gauges, counters: Counters) -> bytes:
    """The text that Grafana serves at /metrics/plugins/<id>.

    It reads files: call it in a worker thread, with gauges taken in the event loop's thread.
    """
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


_ByLabel = Mapping[tuple[str, ...], int]  # the values of the labels → the number


def _labelled(family: Any, name: str, text: str, labels: tuple[str, ...], values: _ByLabel) -> Any:
    """A metric with a number for each combination of its labels' values."""
    metric = family(f"aiostream_ds_{name}", text, labels=labels)
    for label, value in values.items():
        metric.add_metric(label, value)
    return metric


def _each(kinds: Any, values: Mapping[Any, int]) -> _ByLabel:
    """A number for each text of a Literal: one that has not occurred is 0, and can be queried."""
    return {(kind,): values.get(kind, 0) for kind in get_args(kinds)}


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
    yield gauge(
        "subscriptions",
        "RunStream calls, and streams that follow another one.",
        gauges.subscriptions,
    )
    yield _labelled(
        GaugeMetricFamily,
        "streams_degraded",
        "Running streams with a degraded status, by its cause.",
        ("status",),
        _each(Cause, gauges.degraded),
    )
    yield gauge(
        "queue_bytes",
        "Bytes reserved for the queues of slow subscribers, beyond 16 KiB of each.",
        gauges.queue_bytes,
    )
    yield gauge("queue_bytes_limit", "Maximum of these bytes.", gauges.queue_limit)
    yield counter(
        "queue_limit_reached",
        "Times that the queues of a data source or of the process reached their limit.",
        counters.memory_exhausted,
    )
    yield counter("stream_starts", "Runs of stream methods.", counters.starts)
    yield counter("packets", "Packets emitted into channels.", counters.packets)
    yield counter("bytes", "Bytes of those packets' data.", counters.bytes)
    yield counter("rows", "Rows of those packets.", counters.rows)
    yield counter("rows_dropped", "Rows dropped for slow subscribers.", counters.rows_dropped)
    yield counter("drop_episodes", "Times a subscriber began to lag.", counters.drop_episodes)
    yield counter("stream_retries", "Restarts after an UpstreamError.", counters.retries)
    yield counter("rows_filled", "Missed rows that were read from histories.", counters.rows_filled)
    yield counter("gaps", "Gaps between rows that no history could fill.", counters.gaps)
    yield counter(
        "rows_missing",
        "Rows that a source has not received, by the numbers of the rows around them.",
        counters.rows_missing,
    )
    yield counter("refusals", "Subscriptions refused by a quota.", counters.refusals)
    yield counter(
        "rate_limited_connections",
        "Connections closed because the host exceeded a rate limit.",
        counters.rate_limited,
    )
    yield counter("streams_stuck", "Cancelled streams that did not end.", counters.stuck)
    yield counter(
        "lifespans_stuck",
        "Times that a lifespan did not open, close or end in time.",
        counters.lifespans_stuck,
    )
    yield counter("task_failures", "Failures of background tasks.", counters.task_failures)
    yield counter(
        "tasks_stuck",
        "Background tasks that did not end with their data source.",
        counters.tasks_stuck,
    )
    yield counter(
        "thread_waits", "Times that a `def` method waited for a thread.", counters.thread_waits
    )
    yield counter(
        "threads_abandoned",
        "Cancelled `def` methods that did not end in time.",
        counters.threads_abandoned,
    )
    yield _labelled(
        CounterMetricFamily,
        "stream_errors",
        "Failed runs of stream methods.",
        ("kind",),
        _each(ErrorKind, counters.stream_errors),
    )
    yield _labelled(
        CounterMetricFamily,
        "dropped",
        "Rows and values left out by a stream's rules, by reason.",
        ("reason",),
        _each(DropReason, counters.dropped),
    )
    yield _labelled(
        CounterMetricFamily,
        "pushed_rows",
        "Rows that were pushed, by outcome.",
        ("outcome",),
        _each(PushOutcome, counters.pushed),
    )
    yield _labelled(
        CounterMetricFamily,
        "push_refusals",
        "Pushes refused as a whole, by status.",
        ("status",),
        {(str(status),): count for status, count in tuple(counters.push_refusals.items())},
    )
    yield _labelled(
        CounterMetricFamily,
        "requests",
        "Calls from Grafana.",
        ("endpoint", "status"),
        dict(tuple(counters.requests.items())),
    )
    durations = HistogramMetricFamily(
        "aiostream_ds_request_duration_seconds",
        "Duration of calls from Grafana.",
        labels=["endpoint"],
    )
    for endpoint, counts, total in counters.durations():
        bounds = [*map(str, Counters.BUCKETS), "+Inf"]
        sums = [sum(counts[: i + 1]) for i in range(len(counts))]
        durations.add_metric([endpoint], list(zip(bounds, sums, strict=True)), total)
    yield durations
    if gauges.cluster is not None:
        yield from _cluster_families(gauges.cluster)


def _cluster_families(cluster: ClusterGauges) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    state = cluster.state
    yield _labelled(
        GaugeMetricFamily,
        "cluster_channels",
        "Shared channels of this node, by its role.",
        ("role",),
        {(role.value,): cluster.roles.get(role.value, 0) for role in Role},
    )
    gauges: tuple[tuple[str, str, float], ...] = (
        ("connected", "Whether the lease of this node is valid.", state.connected),
        ("nodes", "Nodes with a valid lease.", len(state.nodes)),
        ("lag", "Messages that the channel with the most has not received.", cluster.lag),
        ("upstreams", "Streams that run on this node for the cluster.", cluster.upstreams),
        ("lease_age_seconds", "Time since the lease was renewed.", state.lease_age),
        ("round_trip_seconds", "Duration of the last renewal.", state.round_trip),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"aiostream_ds_cluster_{name}", text, value=value)
    counters = (
        ("takeovers", "Channels that this node has taken.", state.takeovers),
        ("fencings", "Channels that another node took from this one.", state.fencings),
        ("losses", "Times that the server had lost messages of this node.", state.losses),
        ("fills", "Times that rows were read for a log that did not have them.", state.fills),
        ("resets", "Times that viewers of this node missed messages.", state.resets),
        ("outages", "Times that this node lost the server.", state.degraded),
        ("messages_too_large", "Messages that the server did not take.", state.too_large),
    )
    for name, text, count in counters:
        yield CounterMetricFamily(f"aiostream_ds_cluster_{name}", text, value=count)
