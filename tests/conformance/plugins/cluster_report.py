"""What a plugin process knows of its cluster, for the message of a test that has failed."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

from aiostream_ds._cluster.node import ClusterNode

__all__ = ["cluster_report"]


def cluster_report() -> dict[str, Any]:
    """The node of this process, its channels, and where its tasks wait."""
    node = _own_node()
    state = node.state
    return {
        "node": node.name,
        "state": {**state._asdict(), "nodes": sorted(state.nodes)},
        "channels": {name: _channel(each) for name, each in node._members.items()},
        "tasks": Counter(map(_waits, asyncio.all_tasks())).most_common(40),
    }


def _own_node() -> ClusterNode:
    """The one whose tasks run here: it is frozen for the garbage collector."""
    owners = (frame.f_locals.get("self") for task in asyncio.all_tasks() for frame in _stack(task))
    for each in owners:
        if isinstance(each, ClusterNode):
            return each
    raise LookupError("expected a node of a cluster in this process, got none")


def _channel(member: Any) -> str:
    follower = member.follower
    known = {
        "role": member.role.name,
        "owner": follower.owner or "nobody",
        "term": (member.term, follower.term),
        "position": tuple(follower.position),
        "known_end": tuple(follower.known_end),
        "request": follower.request,
        "last": follower.last and follower.last.cursors,
        "delivered": follower.delivered and follower.delivered.cursors,
        "is_subscribed": member.is_subscribed,
        "is_owner_gone": member.is_owner_gone,
        "is_busy": member.log_lock.locked(),
        "away": member.away,
        "next check": round(member.check.delay, 1),
    }
    return ", ".join(f"{name}={value}" for name, value in known.items())


def _waits(task: "asyncio.Task[Any]") -> str:
    """The functions of a task, from the one that waits."""
    frames = list(_stack(task))[-6:]
    return " < ".join(f"{each.f_code.co_qualname}:{each.f_lineno}" for each in reversed(frames))


def _stack(task: "asyncio.Task[Any]") -> Iterator[FrameType]:
    """The frames of a task, from the first one: `Task.get_stack` has only that."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame: FrameType | None = getattr(awaited, "cr_frame", getattr(awaited, "ag_frame", None))
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", getattr(awaited, "ag_await", None))
