"""`aiostream-ds cluster status`: the nodes and channels of a cluster, read from its engine.

The settings are those of the plugin process: the variables GF_PLUGIN_CLUSTER_… of the environment.
"""

import argparse
import os
from collections.abc import Iterator
from typing import cast

import msgspec

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.overview import ChannelOverview, ClusterOverview, HasOverview
from aiostream_ds.cli.local_plugin import run_async
from aiostream_ds.cli.target import CommandError, UsageError

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("what", choices=["status"], help="print the nodes and channels")
    command.add_argument("--url", default="", help="as cluster_url; default: GF_PLUGIN_CLUSTER_URL")
    command.add_argument(
        "--name", default="", help="as cluster_name; default: GF_PLUGIN_CLUSTER_NAME"
    )
    command.add_argument("--json", action="store_true", help="print JSON")


def run(parsed: argparse.Namespace) -> int:
    """Print the status. Raises ConfigError for an invalid setting."""
    environ = dict(os.environ)
    for key, value in (("URL", parsed.url), ("NAME", parsed.name)):
        if value:
            environ[f"GF_PLUGIN_CLUSTER_{key}"] = value
    settings = cluster_settings(environ)
    if settings is None:
        raise UsageError("expected the address of a cluster: --url, or GF_PLUGIN_CLUSTER_URL")

    async def show() -> None:
        found = await _read(cast("HasOverview", cluster_access(settings).engine))
        if parsed.json:
            channels = [channel._asdict() for channel in found.channels]
            print(msgspec.json.encode({"nodes": found.nodes, "channels": channels}).decode())
        else:
            print("\n".join(_lines(found, settings.name)))

    run_async(show)
    return 0


async def _read(engine: HasOverview) -> ClusterOverview:
    try:
        await engine.open_to_look()
        return await engine.overview()
    except EngineError as error:
        raise CommandError(f"the cluster cannot be reached: {error}") from error
    finally:
        await engine.aclose()


def _lines(found: ClusterOverview, name: str) -> Iterator[str]:
    yield f"{_count(len(found.nodes), 'node')} in the cluster {name}"
    for node in sorted(found.nodes):
        owned = sum(channel.owner == node for channel in found.channels)
        followed = sum(node in channel.subscribed for channel in found.channels)
        yield f"  {node}: owns {owned}, has viewers of {followed}"
    kept = [channel for channel in found.channels if channel.left is not None]
    yield _count(len(found.channels) - len(kept), "channel")
    for channel in found.channels:
        if channel.left is None:
            owner, viewers = channel.owner or "none", _count(len(channel.subscribed), "node")
            text = f"owner {owner}, term {channel.term}, viewers on {viewers}, {_log_of(channel)}"
            yield f"  {channel.channel}: {text}"
    if kept:
        yield f"{_count(len(kept), 'log')} kept after the last viewer"
    for channel in kept:
        yield f"  {channel.channel}: {_log_of(channel)}, {channel.left:.0f} s left"


def _log_of(channel: ChannelOverview) -> str:
    size = "" if channel.size is None else f", {channel.size} bytes"
    return f"{_count(channel.entries, 'message')}{size}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
