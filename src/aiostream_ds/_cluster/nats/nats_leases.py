"""Leases of nodes, and which nodes have subscribers of a channel."""

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from aiostream_ds._cluster.nats.nats_jetstream import JetStream, NotExpected, StoredMessage
from aiostream_ds._cluster.nats.nats_subjects import Subjects, from_token
from aiostream_ds._cluster.nats.shared_call import SharedCall

__all__ = ["Presence"]

_SECONDS = "Aiostream-Lease"
_KEPT = 60
"""Seconds for which the server keeps a lease that has ended. It removes messages by whole seconds
only, so that the end of a lease is computed from the time of its message."""


class _Renewal(NamedTuple):
    """The message of the last renewal, and when this process knew that it was stored."""

    sequence: int
    answered: float


class Presence:
    """Leases and members, in the state stream.

    A lease is valid for its seconds after the server has stored it, by the server's clock.
    """

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._renewal = _Renewal(0, 0.0)
        self._leases = SharedCall(self._read_leases, "nats leases")

    async def renew(self, node: str, seconds: float) -> None:
        """Make a lease valid for so many seconds from now."""
        headers = _lease_headers(seconds)
        sequence = await self._jetstream.publish(self._subjects.node(node), b"", headers)
        self._renewal = _Renewal(sequence, self._loop_time())

    async def end(self, node: str, age: float) -> None:
        """End a lease, unless it was renewed less than `age` seconds ago. Calls at the same time
        share the request for the leases."""
        leases, now = await self._leases()
        subject = self._subjects.node(node)
        for lease in leases:
            if lease.subject == subject and lease.time + age <= now:
                expected = {"Nats-Expected-Last-Subject-Sequence": str(lease.sequence)}
                with contextlib.suppress(NotExpected):  # it was renewed meanwhile
                    await self._jetstream.publish(subject, b"", _lease_headers(0) | expected)

    async def enter(self, channel: str, node: str) -> None:
        """The node has subscribers of the channel."""
        await self._jetstream.publish(self._subjects.use(channel, node), b"", {})

    async def leave(self, channel: str, node: str) -> None:
        """The node has none any more."""
        await self._jetstream.purge(self._subjects.state_stream, self._subjects.use(channel, node))

    async def members(self, channel: str) -> frozenset[str]:
        """The nodes with subscribers and a valid lease."""
        subjects, _ = await self._jetstream.subjects(
            self._subjects.state_stream, self._subjects.uses_of(channel)
        )
        nodes = frozenset(from_token(each.rpartition(".")[2]) for each in subjects)
        return nodes & (await self.valid_nodes()).keys() if nodes else nodes

    async def valid_nodes(self) -> Mapping[str, float]:
        """The nodes with a valid lease, and its age in seconds. Calls at the same time share the
        requests."""
        leases, now = await self._leases()
        return {
            from_token(lease.subject.rpartition(".")[2]): now - lease.time
            for lease in leases
            if (seconds := float(lease.headers.get(_SECONDS, "0"))) > 0  # `now` may be too early
            and lease.time + seconds > now
        }

    async def aclose(self) -> None:
        """End what runs."""
        await self._leases.aclose()

    async def _read_leases(self) -> tuple[Sequence[StoredMessage], float]:
        """The leases, also those that have ended, and the time of the server then, or a little
        less."""
        stream, subjects = self._subjects.state_stream, self._subjects.nodes
        asked = self._loop_time()
        leases = await self._jetstream.last_of_each(stream, subjects)
        now = self._server_time(leases, asked)
        if now is None:
            now = await self._jetstream.time(stream)
            leases = await self._jetstream.last_of_each(stream, subjects)
        return leases, now

    def _server_time(self, leases: Sequence[StoredMessage], asked: float) -> float | None:
        """The time of the server then, or a little less: by the lease of this process, without a
        request. None: its lease is not there, or the clock of the server was set back."""
        in_order = sorted(leases, key=lambda lease: lease.sequence)
        if any(later.time < earlier.time for earlier, later in pairwise(in_order)):
            return None
        for lease in leases:
            if lease.sequence == self._renewal.sequence:
                return lease.time + asked - self._renewal.answered
        return None

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()


def _lease_headers(seconds: float) -> dict[str, str]:
    kept = math.ceil(seconds) + _KEPT
    return {_SECONDS: repr(float(seconds)), "Nats-TTL": f"{kept}s"}
