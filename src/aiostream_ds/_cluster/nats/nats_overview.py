"""Reads what an operator sees of a cluster from NATS."""

import asyncio

from aiostream_ds._cluster.nats.nats_entries import log_message
from aiostream_ds._cluster.nats.nats_jetstream import JetStream
from aiostream_ds._cluster.nats.nats_leases import Presence
from aiostream_ds._cluster.nats.nats_subjects import Subjects, from_token
from aiostream_ds._cluster.overview import ChannelOverview, ClusterOverview

__all__ = ["read_overview"]

_TOGETHER = 32  # requests in flight


async def read_overview(
    jetstream: JetStream, subjects: Subjects, presence: Presence, idle: float
) -> ClusterOverview:
    """All nodes and channels; two requests for each channel. Logs without an owner and subscribers
    are kept for `idle` seconds after their last entry. Raises EngineError."""
    if not await jetstream.has_stream(subjects.state_stream):
        return ClusterOverview(frozenset(), [])  # no process has been there
    nodes = frozenset(await presence.valid_nodes())
    uses, _ = await jetstream.subjects(subjects.state_stream, subjects.uses)
    logs, now = await jetstream.subjects(subjects.log_stream, subjects.logs)
    subscribed: dict[str, set[str]] = {}
    for subject in uses:
        channel, node = map(from_token, subject.split(".")[-2:])
        if node in nodes:
            subscribed.setdefault(channel, set()).add(node)
    free = asyncio.Semaphore(_TOGETHER)

    async def read(subject: str) -> ChannelOverview:
        channel = from_token(subject.rpartition(".")[2])
        async with free:
            last = await jetstream.last(subjects.log_stream, subject)
            info = await jetstream.call("STREAM.INFO", subjects.log_stream, subjects_filter=subject)
        entries = (info["state"].get("subjects") or {}).get(subject, 0)
        message = None if last is None else log_message(last.sequence, last.headers, b"")
        owner, term = ("", 0) if message is None else (message.node, message.id.term)
        owner = owner if owner in nodes else ""
        viewers = frozenset(subscribed.get(channel, ()))
        left = None
        if last is not None and not owner and not viewers:
            left = max(last.time + idle - now, 0.0)
        return ChannelOverview(channel, owner, term, viewers, entries, None, left)

    return ClusterOverview(nodes, await asyncio.gather(*map(read, sorted(logs))))
