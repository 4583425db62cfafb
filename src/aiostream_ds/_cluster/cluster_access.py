"""How this process takes part in a cluster."""

from typing import NamedTuple

from aiostream_ds._cluster.engine import Engine
from aiostream_ds._cluster.message_cipher import Cipher

__all__ = ["ClusterAccess"]


class ClusterAccess(NamedTuple):
    """The engine of a cluster, which nothing has opened yet; the name of this node, which no other
    process has; and what encrypts messages, if the cluster has a key."""

    engine: Engine
    node: str
    cipher: Cipher | None = None
