"""The two streams of the engine: created, or changed to what the settings want, and checked."""

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.nats.nats_client import MissingPermission, NatsClient
from aiostream_ds._cluster.nats.nats_entries import SENT_HEADERS
from aiostream_ds._cluster.nats.nats_jetstream import (
    NO_STREAM,
    JetStream,
    JetStreamError,
    NotExpected,
    parse_time,
)
from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from aiostream_ds.errors import ConfigError

__all__ = ["Streams"]

_OLDEST = (2, 11)
"""The first version with the time to live of a message, and with batches of direct gets."""

_IN_USE = 10_058  # with another configuration
_REPAIR_INTERVAL = 0.5  # seconds
_ATTEMPTS = 5
_ATTEMPT_INTERVAL = 0.1  # seconds
_PROBE = "_probe"
_IMPOSSIBLE = str((1 << 63) - 1)
"""A sequence that no message has, so that nothing is stored."""

_WORDS: Mapping[int, str] = {
    10_052: "it cannot be changed to what the settings want",
    10_039: "JetStream is not enabled for this account",
    10_076: "JetStream is not enabled",
    10_065: "another stream has these subjects; the name of the cluster must be another one",
    10_023: "the server has not enough storage, or the account may not use so much",
    10_028: "the account may not use so much storage",
    10_026: "the account may not have more streams",
    10_027: "the account may not have more streams",
    10_074: "there are more replicas than servers in the cluster of NATS",
    10_005: "fewer servers than replicas have enough storage",
    10_047: "the server has less storage left than the logs may use",
    10_015: "the server has less memory left than the logs may use",
}
"""What has to change, by the number of an error of JetStream."""


class Streams:
    """Sets up the streams, and checks the rights of the user."""

    def __init__(
        self,
        settings: NatsEngineSettings,
        client: NatsClient,
        jetstream: JetStream,
        subjects: Subjects,
    ) -> None:
        self._settings = settings
        self._client = client
        self._jetstream = jetstream
        self._subjects = subjects
        self._ahead = 0.0
        self._repairing = asyncio.Lock()
        self._repaired = -math.inf

    def now(self) -> float:
        """The time of the server in seconds, as of its last answer here."""
        return time.monotonic() + self._ahead

    async def open(self) -> None:
        """Set up the streams and check the rights.

        Raises:
            ConfigError: what has to change in the settings or at the server.
            EngineError: there is no answer in time.
        """
        self._check_version()
        try:
            await self.ensure()
            await self._check_rights()
        except MissingPermission as error:
            raise ConfigError(f"{error}; the user lacks this right") from error

    def _check_version(self) -> None:
        version = self._client.version
        found = re.match(r"(\d+)\.(\d+)", version)
        if found is None or (int(found[1]), int(found[2])) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise ConfigError(f"the NATS server must be version {oldest} or newer, got {version!r}")

    async def ensure(self) -> None:
        """Set up the streams. Called again after each reconnection: a server may have lost a
        stream that is in memory."""
        for wanted in self._wanted():
            await self._ensure(wanted)

    async def repair(self) -> None:
        """Set up the streams if one was deleted. Calls at the same time are one.

        Raises:
            EngineError: it is not possible now.
        """
        async with self._repairing:
            if time.monotonic() - self._repaired < _REPAIR_INTERVAL:
                return
            try:
                await self.ensure()
            except ConfigError as error:
                raise EngineError(str(error)) from error
            self._repaired = time.monotonic()

    def _wanted(self) -> Sequence[Mapping[str, Any]]:
        settings, subjects = self._settings, self._subjects
        common = {
            "retention": "limits",
            "discard": "old",
            "storage": settings.storage,
            "num_replicas": settings.replicas,
            "max_age": 0,
            "max_msgs": -1,
            "allow_direct": True,
        }
        log = {
            "name": subjects.log_stream,
            "description": "aiostream-ds: logs of channels",
            "subjects": [subjects.logs],
            "max_msgs_per_subject": settings.entries,
            "max_bytes": settings.max_bytes,
            "republish": {"src": subjects.logs, "dest": subjects.live},
        }
        state = {
            "name": subjects.state_stream,
            "description": "aiostream-ds: leases and subscribers of nodes",
            "subjects": [subjects.state],
            "max_msgs_per_subject": 1,
            "max_bytes": -1,
            "allow_msg_ttl": True,
        }
        return common | log, common | state

    async def _ensure(self, wanted: Mapping[str, Any]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                found = await self._set_up(wanted)
            except JetStreamError as error:
                explained = self._explained(wanted["name"], error)
                if isinstance(explained, ConfigError) or attempt == _ATTEMPTS:
                    raise explained from error
                await asyncio.sleep(_ATTEMPT_INTERVAL)  # a stream may be just being deleted
            else:
                self._ahead = parse_time(found["ts"]) - time.monotonic()
                return

    async def _set_up(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        name = wanted["name"]
        try:
            found = await self._jetstream.call("STREAM.INFO", name)
        except JetStreamError as error:
            if error.number != NO_STREAM:
                raise
            found = await self._jetstream.call("STREAM.CREATE", name, **wanted)
        present = found["config"]
        if present["subjects"] != wanted["subjects"]:
            raise ConfigError(
                f"the stream {name!r} of NATS must have the subjects {wanted['subjects']}, got"
                f" {present['subjects']}; delete it, or set another name"
            )
        if self._differs(wanted, present):
            found = await self._jetstream.call("STREAM.UPDATE", name, **{**present, **wanted})
        return found

    @staticmethod
    def _differs(wanted: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
        ignored = ("description",)
        return any(
            present.get(name) != value for name, value in wanted.items() if name not in ignored
        )

    def _explained(self, stream: str, error: JetStreamError) -> Exception:
        if error.number in _WORDS:
            return ConfigError(f"the stream {stream!r} of NATS: {_WORDS[error.number]}: {error}")
        if not error.number and "not enabled" in str(error):
            return ConfigError(f"{error}; the NATS server needs jetstream in its configuration")
        if error.status >= 500:
            return error  # there is no leader yet, for example
        return ConfigError(f"the stream {stream!r} of NATS cannot be set up: {error}")

    async def _check_rights(self) -> None:
        """Do everything once that the engine does, without an effect."""
        subjects, jetstream = self._subjects, self._jetstream
        for subject in (subjects.log_of(_PROBE), subjects.node(_PROBE)):
            try:
                await jetstream.publish(
                    subject, b"", {"Nats-Expected-Last-Subject-Sequence": _IMPOSSIBLE}
                )
            except NotExpected:
                continue
        await jetstream.page(subjects.log_stream, subjects.log_of(_PROBE), 1, 1)
        for stream, subject in (
            (subjects.state_stream, subjects.node(_PROBE)),
            (subjects.log_stream, subjects.log_of(_PROBE)),
        ):
            await jetstream.last(stream, subject)
            await jetstream.get_from_leader(stream, last_by_subj=subject)
            await jetstream.purge(stream, subject)
        await self._check_sending()

    async def _check_sending(self) -> None:
        arrived = asyncio.Event()
        subject = self._subjects.live_of(_PROBE)
        number = self._client.subscribe(subject, lambda message: arrived.set())
        try:
            await self._client.confirm(number)
            await self._client.publish(subject, b"", SENT_HEADERS)
            await self._client.flush()
            if not arrived.is_set():  # the server has sent it before the answer to the flush
                raise ConfigError(
                    f"the user of NATS lacks the right to publish to {self._subjects.live_rights}"
                )
        finally:
            self._client.unsubscribe(number)

    async def reach_leader(self) -> None:
        """Wait until the server that publishes entries again has the subscriptions that were made
        before: in a cluster it may be another one than that of the connection."""
        await self._jetstream.last(self._subjects.log_stream, self._subjects.log_of(_PROBE))
