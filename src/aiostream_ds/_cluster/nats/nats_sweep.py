"""Removes the logs of channels that nobody uses, and what dead nodes have left."""

import asyncio
import random

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.nats.nats_entries import log_message
from aiostream_ds._cluster.nats.nats_jetstream import JetStream, NotExpected
from aiostream_ds._cluster.nats.nats_subjects import Subjects, from_token
from aiostream_ds._loggers import get_logger

__all__ = ["Sweep"]

logger = get_logger(__name__)


class Sweep:
    """Looks for unused channels now and then. One node of the cluster does it at a time.

    A channel is unused if its owner has resigned or is dead, if only dead nodes have subscribers of
    it, and if its last entry is older than `idle` seconds. A node is dead when the server has
    removed its lease, some time after its end: one that was paused renews it and goes on.
    """

    def __init__(self, jetstream: JetStream, subjects: Subjects, idle: float) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._idle = idle

    async def run(self) -> None:
        """Sweep until the task is cancelled."""
        while True:
            await asyncio.sleep(self._idle / 2 * random.uniform(0.8, 1.2))
            try:
                if await self._is_due():
                    await self.sweep()
            except EngineError as error:
                logger.info("NATS: unused channels were not removed: %s", error)
            except Exception:
                logger.exception("NATS: unused channels were not removed")

    async def _is_due(self) -> bool:
        """Whether no node has swept lately; then this one does."""
        stream, subject = self._subjects.state_stream, self._subjects.sweep
        last = await self._jetstream.last(stream, subject)
        _, now = await self._jetstream.subjects(stream, subject)
        if last is not None and now - last.time < self._idle / 2:
            return False
        sequence = 0 if last is None else last.sequence
        try:
            await self._jetstream.publish(
                subject, b"", {"Nats-Expected-Last-Subject-Sequence": str(sequence)}
            )
        except NotExpected:
            return False
        return True

    async def sweep(self) -> int:
        """Remove the logs of unused channels; returns how many. Raises EngineError."""
        state, log = self._subjects.state_stream, self._subjects.log_stream
        uses, _ = await self._jetstream.subjects(state, self._subjects.uses)
        leases, _ = await self._jetstream.subjects(state, self._subjects.nodes)
        logs, now = await self._jetstream.subjects(log, self._subjects.logs)
        pairs = [subject.split(".")[-2:] for subject in uses]
        known = {subject.rpartition(".")[2] for subject in leases}
        channels = {channel for channel, node in pairs if node in known}
        for node in {node for _, node in pairs} - known:
            await self._jetstream.purge(state, self._subjects.uses_by(from_token(node)))
        owners = frozenset(map(from_token, known))
        removed = 0
        for subject in logs:
            if subject.rpartition(".")[2] not in channels:
                removed += await self._remove_unused(subject, owners, now)
        return removed

    async def _remove_unused(self, subject: str, nodes: frozenset[str], now: float) -> bool:
        last = await self._jetstream.last(self._subjects.log_stream, subject)
        if last is None or now - last.time < self._idle:
            return False
        message = log_message(last.sequence, last.headers, b"")
        if message is not None and message.node in nodes:
            return False
        # up to this message: an entry that was appended meanwhile stays
        await self._jetstream.purge(self._subjects.log_stream, subject, seq=last.sequence + 1)
        return True
