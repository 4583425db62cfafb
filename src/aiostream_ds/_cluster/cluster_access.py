"""How this process takes part in a cluster."""

from typing import NamedTuple

from aiostream_ds._cluster.engine import Engine
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node_options import NodeOptions

__all__ = ["ClusterAccess"]


class ClusterAccess(NamedTuple):
    """The engine of a cluster, which nothing has opened yet; the name of this node, which no other
    process has; what encrypts messages, if the cluster has a key; and the node's times and limits.
    """

    engine: Engine
    node: str
    cipher: Cipher | None = None
    options: NodeOptions | None = None
