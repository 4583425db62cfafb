"""A process with a node of a cluster and a silent channel, which it owns if nobody else does.

`python -m tests.cluster.node_process URL LEASE` prints the node's name when it reads the source.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._cluster.engine import Engine
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role

CHANNEL = "c"


class Silent:
    """A source without messages, and the viewers of one node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.role_now = Role.JOINING
        self.is_read = asyncio.Event()

    async def source(self, resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
        self.is_read.set()
        print(self.name, flush=True)
        await asyncio.Event().wait()
        yield Outgoing(b"row")

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None: ...
    def receive(self, message: Incoming) -> None: ...
    def reset(self, reason: str) -> None: ...
    def degraded(self, reason: str | None) -> None: ...

    def role(self, role: Role, owner: str) -> None:
        self.role_now = role


def engine_at(url: str) -> Engine:
    settings = cluster_settings({"GF_PLUGIN_CLUSTER_URL": url})
    assert settings is not None
    return cluster_access(settings).engine


async def main(url: str, lease: float) -> None:
    silent = Silent("process")
    async with ClusterNode(engine_at(url), silent.name, NodeOptions(lease=lease)) as node:
        await node.run_channel(CHANNEL, silent.source, silent)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
