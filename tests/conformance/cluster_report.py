"""Which panels of a stage lack rows, and what servers and upstream know of their channels."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.exact.client import ExactPanel
from tests.exact.hosts import Node

if TYPE_CHECKING:
    from .cluster_stage import Stage

__all__ = ["report_of"]

_CHANNELS = 3  # that are described
_TIMEOUT = 5.0  # seconds in which a plugin answers


async def report_of(stage: "Stage") -> str:
    """What is missing."""
    late = [panel for panel in stage.panels if panel.cursor != stage.upstream.last]
    running = stage.upstream.running
    shown = list(dict.fromkeys(panel.query["name"] for panel in late))
    shown += [name for name in running if running[name] != 1 and name not in shown]
    known = await asyncio.gather(*(_node(node) for node in stage.nodes))
    lines = [f"{len(late)} of {len(stage.panels)} panels lack rows up to {stage.upstream.last}"]
    lines += [_panel(stage, panel) for panel in late]
    lines += [f"{len(shown)} channels lack rows or have not one run"]
    for name in shown[:_CHANNELS]:
        lines.append(f"channel {name}: read by {stage.upstream.readers.get(name, [])}")
        lines += [f"  server {n}: {_channel(each, name)}" for n, each in enumerate(known)]
    for number, (node, each) in enumerate(zip(stage.nodes, known, strict=True)):
        lines.append(f"server {number}: pid {node.pid}, starts {node.starts}")
        lines += [f"  {line}" for line in _state(each)]
        lines += [f"  log: {line}" for line in await _log(node)]
    return "\n".join(lines)


def _panel(stage: "Stage", panel: ExactPanel) -> str:
    name, server = panel.query["name"], stage.tabs.index(panel._tab)
    subscription = panel._subscription
    is_connected = subscription is not None and subscription.connected
    return (
        f"  {name} on server {server}: cursor {panel.cursor} of {panel.epoch}, {len(panel._queue)}"
        f" packets to handle, connected={is_connected}, truncated={panel._truncated},"
        f" epoch differs={panel._epoch_differs}, {panel.fetches} fetches, faults {panel.faults[:2]}"
    )


def _channel(known: dict[str, Any] | str, name: str) -> str:
    if isinstance(known, str):
        return known
    found = [each for key, each in known["channels"].items() if f"numbers-{name}." in key]
    return " | ".join(found) or "does not take part"


def _state(known: dict[str, Any] | str) -> Sequence[str]:
    if isinstance(known, str):
        return [known]
    tasks = [f"{count} tasks: {where}" for where, count in known["tasks"]]
    return [f"{known['node']}: {known['state']}", f"{len(known['channels'])} channels", *tasks]


async def _node(node: Node) -> dict[str, Any] | str:
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await node.resource("cluster")
    except Exception as error:
        return f"no answer: {error!r}"


async def _log(node: Node) -> list[str]:
    """The last warnings of a plugin."""
    lines = await node.log()
    return [f"{each}"[:300] for each in lines if each["level"] in ("warn", "error")][-10:]
