"""Names of the engine's keys, and of the channels of pub/sub, which are the names of the logs.

All keys of a channel have one hash tag, so that they are in one slot of a Redis Cluster: that of
the channel's partition. Leases are kept for each partition. The tags are chosen so that the
partitions share the slots evenly.
"""

import itertools
import re
import zlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from redis.crc import key_slot

from aiostream_ds.errors import ConfigError

__all__ = ["PARTITIONS", "ChannelKeys", "KeyNames", "PartitionKeys"]

PARTITIONS = 128
"""Partitions of the channels in a Redis Cluster; elsewhere there is one."""

_KNOWN = 32_768  # channels whose names are kept
_SLOTS = 16_384
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CHANNEL = re.compile(r"[A-Za-z0-9_.-]+")


class PartitionKeys(NamedTuple):
    """The keys of a partition."""

    leases: bytes
    channels: bytes
    kept: bytes


class ChannelKeys(NamedTuple):
    """The keys of a channel, and of its partition, in the order of the scripts."""

    state: bytes
    log: bytes
    nodes: bytes
    leases: bytes
    channels: bytes
    kept: bytes


class KeyNames:
    """The names of the keys of one namespace.

    Args:
        namespace: clusters with different ones do not know each other.
        partitions: how many there are.

    Raises:
        ConfigError: the namespace is invalid.
    """

    def __init__(self, namespace: str, partitions: int) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigError(
                "the namespace of the cluster must be 1 to 64 letters, digits and -_., got"
                f" {namespace!r}"
            )
        self.prefix = f"{namespace}:"
        self._starts = [f"{self.prefix}{{{tag}}}:" for tag in _tags(partitions)]
        self.partitions: Sequence[PartitionKeys] = [
            PartitionKeys(*(f"{start}{kind}".encode() for kind in PartitionKeys._fields))
            for start in self._starts
        ]
        self.of = lru_cache(_KNOWN)(self._of)
        """The keys of a channel. Raises ValueError for an invalid name."""

    def partition(self, channel: str) -> int:
        """The partition of a channel."""
        return zlib.crc32(channel.encode()) % len(self.partitions)

    def _of(self, channel: str) -> ChannelKeys:
        if not _CHANNEL.fullmatch(channel):
            raise ValueError(f"a channel must be letters, digits and -_., got {channel!r}")
        number = self.partition(channel)
        state, log, nodes = (
            f"{self._starts[number]}{kind}:{channel}".encode() for kind in ("state", "log", "nodes")
        )
        return ChannelKeys(state, log, nodes, *self.partitions[number])

    def probe(self, partition: int) -> bytes:
        """The beginning of keys for a dry run of commands."""
        return f"{self._starts[partition]}check:".encode()


@cache
def _tags(count: int) -> Sequence[str]:
    """For each partition the first number whose slot is in the partition's share of the slots."""
    found: dict[int, str] = {}
    for number in itertools.count():
        if len(found) == count:
            return [found[partition] for partition in range(count)]
        tag = str(number)
        found.setdefault(key_slot(tag.encode()) * count // _SLOTS, tag)
    raise AssertionError
