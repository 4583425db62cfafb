"""Access of a numbered node to the model of an engine, in virtual time."""

import asyncio
from random import Random

from aiostream_ds._cluster.cluster_access import ClusterAccess
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node_options import NodeOptions
from tests.cluster.model_engine import ModelEngine, ModelServer


def access(server: ModelServer, number: int, cipher: Cipher | None = None) -> ClusterAccess:
    """For `serve_in_memory(cluster=…)`, in a running event loop."""
    clock = asyncio.get_running_loop().time
    times = NodeOptions(clock=clock, random=Random(number))
    return ClusterAccess(ModelEngine(server, seed=number), f"node{number}", cipher, times)
