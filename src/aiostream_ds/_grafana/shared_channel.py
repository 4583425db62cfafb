"""One shared channel on one node: its packets come from the log of the cluster.

    author's stream ──▶ inner channel ──▶ messages ──▶ the log of the engine      on the owner
                                                             │
    viewers ◀── the channel that they have joined ◀── receive┘                    on each node

The inner channel has one exact subscriber, which takes its packets as fast as the engine takes
messages: rows collect meanwhile, as for any slow subscriber, and the buffer's policy applies. The
channel of the viewers is as that of a stream that is not shared. While this node owns a channel
that only viewers of other nodes follow, there is none.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from msgspec import structs

from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.exceptions import StreamFailed
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import PACKET_BYTES, Policy
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.status import Status
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._cluster.packet_codec import NO_SCHEMA, PacketCodec, SharedMessage
from aiostream_ds._cluster.shared_log import SharedLog
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._frames import frame_rows, json
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters

__all__ = ["SharedChannel", "SharedStream"]

log = get_logger(__name__)


class SharedStream(NamedTuple):
    """What a shared channel needs of the author's stream.

    `run` runs it in the channel of a registry of its own, with the policy. `kind` reads the cursors
    of its rows; None: they have none, and `row_log` has their numbers. `learn` is called with the
    columns of the owner's rows.
    """

    key: ChannelKey
    run: Runner
    policy: Policy
    kind: CursorKind | None
    row_log: SharedLog | None
    learn: Callable[[Schema], None]


class SharedChannel:
    """The `Sink` of a shared channel, and with `messages` its source.

    Args:
        stream: the author's stream.
        inner: the registry in which it runs.
        codec: encodes the messages of this channel.
        counters: where gaps are counted.

    Attributes:
        has_ended: whether the author's stream has returned, here or on another node.
    """

    def __init__(
        self, stream: SharedStream, inner: ChannelRegistry, codec: PacketCodec, counters: Counters
    ) -> None:
        self._stream = stream
        self._inner = inner
        self._codec = codec
        self._counters = counters
        self._channel: Channel | None = None  # of the viewers of this node
        self.has_ended = False
        self._has_followed = False  # another owner, since this node has owned the channel
        self._has_joined = False
        self._schema = NO_SCHEMA
        self._cursors: CursorRange | None = None  # the newest that were received
        self._status: Status | None = None
        self._degraded: Status | None = None
        self._is_unreadable = False  # reported
        self._local: CursorRange | None = None  # the newest numbers of rows while the role is LOCAL
        self._local_epoch = ""  # of the last such numbers
        self._outgoing: _Outgoing | None = None  # of the last source of this node

    # -- the channel of the viewers ------------------------------------------------------------

    def attach(self, channel: Channel) -> None:
        """Emit into this channel from now on."""
        self._channel = channel
        if self._has_joined:
            self._show_position()
        self._show_status()

    def detach(self) -> None:
        """The channel has ended."""
        self._channel = None

    @property
    def _open_channel(self) -> Channel | None:
        channel = self._channel
        return channel if channel is not None and channel.open else None

    def _show_position(self) -> None:
        """Make the schema and the newest cursor known to the viewers."""
        channel, cursors = self._open_channel, self._cursors
        if channel is not None and cursors is not None:
            newest = CursorRange(cursors.epoch, cursors.last, cursors.last)
            channel.emit(Packet(self._schema, b"", 0, newest))

    def _show_status(self) -> None:
        channel = self._open_channel
        if channel is None:
            return
        if self._status is not None:
            channel.statuses.set("followed", self._status)
        elif channel.status is not None:
            channel.statuses.clear("followed")
        if self._degraded is not None:
            channel.statuses.set("cluster", self._degraded)
        elif channel.status is not None:
            channel.statuses.clear("cluster")

    # -- the sink ------------------------------------------------------------------------------

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None:
        """See `Sink.joined`. The rows of the tail are kept in the log only: viewers get them from
        their queries."""
        for incoming in tail:
            message = self._decode(incoming)
            if message is None:
                continue
            if self._stream.row_log is not None:
                self._stream.row_log.append_message(message, self._inner.loop.time())
            self._advance(message.cursors)
            self._status = message.status
        self._has_joined = True
        if self._stream.row_log is not None:
            self._stream.row_log.is_live = True
        self._show_position()
        self._show_status()

    def receive(self, message: Incoming) -> None:
        """See `Sink.receive`."""
        found = self._decode(message)
        if found is None:
            return
        packets: Sequence[Packet] = found.packets
        newest = found.cursors
        own = None if self._outgoing is None else self._outgoing.payload
        if self._local is not None and message.payload is own:
            packets, newest = _numbered(packets, self._local)
            self._local = newest
        if message.after is not None and self._stream.kind is not None:
            packets = _after(packets, message.after, self._stream.kind)
        channel = self._open_channel
        if found.missing:
            self._miss_rows()
        if channel is not None and packets:
            channel.emit(*packets)
        elif channel is not None and newest not in (None, self._cursors):
            channel.emit(Packet(self._schema, b"", 0, newest))
        elif self._stream.row_log is not None:
            self._stream.row_log.append(packets, 0, 0, self._inner.loop.time())
        self._advance(newest)
        self.has_ended = found.has_ended
        if found.status != self._status:
            self._status = found.status
            self._show_status()

    def reset(self, reason: str) -> None:
        """See `Sink.reset`."""
        log.warning("rows may be missing: %s", reason, extra={"path": self._stream.key.path})
        if self._stream.row_log is not None:
            self._stream.row_log.restart()
        self._miss_rows()

    def role(self, role: Role, owner: str) -> None:
        """See `Sink.role`. Other nodes number other rows while this one is LOCAL. Its own rows have
        another epoch then, also those of a message that was made before and is not in the log."""
        self._local = None
        if role is Role.LOCAL and self._stream.row_log is not None:
            self._local = _new_numbers()
            self._local_epoch = self._local.epoch
        self._has_followed = self._has_followed or role is Role.FOLLOWER

    def degraded(self, reason: str | None) -> None:
        """See `Sink.degraded`."""
        self._degraded = None
        if reason is not None:
            text = f"not shared, the cluster cannot be reached: {reason}"
            self._degraded = Status("warning", text)
        self._show_status()

    def _miss_rows(self) -> None:
        self._counters.gaps += 1
        channel = self._open_channel
        if channel is not None:
            channel.statuses.rows_missing()

    def _advance(self, cursors: CursorRange | None) -> None:
        if cursors is not None:
            self._cursors = cursors
            if self._stream.row_log is not None:
                self._stream.row_log.begin(cursors)

    def _decode(self, incoming: Incoming) -> SharedMessage | None:
        try:
            own = self._outgoing
            if own is not None and incoming.payload == own.payload:
                schema = self._codec.decode_schema(incoming.schema)
                message = own.read_back(schema)
            else:
                message, schema = self._codec.decode(incoming.payload, incoming.schema)
            if schema is not self._schema and schema.body:
                self._learn(schema)
        except UnreadableMessage as error:
            self._report_unreadable(error)
            return None
        self._schema = schema
        return message

    def _learn(self, schema: Schema) -> None:
        """Raises UnreadableMessage for columns that this version does not know."""
        try:
            self._stream.learn(schema)
        except ValueError as error:  # of msgspec
            raise UnreadableMessage(str(error)) from None

    def _report_unreadable(self, error: UnreadableMessage) -> None:
        self._counters.count_dropped("cluster")
        self._status = Status("error", f"a message of the cluster cannot be read: {error}")
        self._show_status()
        if not self._is_unreadable:
            self._is_unreadable = True
            log.error(
                "a message of the cluster cannot be read: %s",
                error,
                extra={"path": self._stream.key.path},
            )

    # -- the source ----------------------------------------------------------------------------

    async def messages(self, last: Incoming | None) -> AsyncGenerator[Outgoing]:
        """See `UpstreamSource`: runs the author's stream and yields its messages."""
        row_log = self._stream.row_log
        outgoing = self._outgoing = _Outgoing(self._codec, row_log is None)
        outgoing.cursors = cursors = self._resume_from(last)
        if row_log is None and cursors is not None:
            self._inner.resume_points[self._stream.key] = cursors
        missing = self._has_followed and row_log is not None
        self._has_followed = False
        begin: Outgoing | None = outgoing.message((), self._schema, None, missing=missing)
        while True:
            run = self._stream
            # it opens the upstream while the first message is on its way to the log
            subscription = self._inner.join(run.key, run.run, run.policy, exact=True)
            try:
                if begin is not None:
                    yield begin
                    begin = None
                async for each in self._of_run(subscription, outgoing):
                    yield each
                yield outgoing.message((), outgoing.schema, None, has_ended=True)
                return
            except StreamFailed:
                pass  # logged; the next run waits, longer after each failure
            finally:
                subscription.leave()

    def _resume_from(self, last: Incoming | None) -> CursorRange | None:
        """The cursors, or the numbers, after which those of the next rows follow."""
        row_log = self._stream.row_log
        cursors = None
        if last is not None:
            try:
                cursors = self._codec.decode(last.payload, last.schema)[0].cursors
            except UnreadableMessage as error:
                if not self._is_unreadable:
                    self._report_unreadable(error)
                # its numbers are not known, and must not be given again
                cursors = last.cursors if row_log is None else _new_numbers()
        if row_log is None:
            return cursors
        if cursors is None and row_log.epoch == self._local_epoch:
            return _new_numbers()  # the log may have forgotten which of these were given
        # the engine may have lost messages that this node has received: their numbers are used
        return _later(cursors, row_log.cursors)

    async def _of_run(
        self, subscription: Subscription, outgoing: "_Outgoing"
    ) -> AsyncGenerator[Outgoing]:
        """The messages of one run."""
        more = True
        while more:
            more = await subscription.wait()
            taken = [packet for _, packet in subscription.receive_nowait()]
            status = self._source_status()
            for schema, packets in _parts(taken):
                yield outgoing.message(packets, schema, status)
            if status != outgoing.status:
                yield outgoing.message((), outgoing.schema, status)

    def _source_status(self) -> Status | None:
        inner = self._inner.peek(self._stream.key)
        return None if inner is None else inner.status


class _Outgoing:
    """Makes the messages of one owner.

    Attributes:
        cursors: the newest.
        schema, status, payload: those of the last message.
    """

    def __init__(self, codec: PacketCodec, has_cursors: bool) -> None:
        self._codec = codec
        self._has_cursors = has_cursors
        self._is_first = True
        self.cursors: CursorRange | None = None
        self.schema = NO_SCHEMA
        self.status: Status | None = None
        self.payload = b""
        self._sent = SharedMessage()

    def read_back(self, schema: Schema) -> SharedMessage:
        """The last message as it is in the log, without decoding its payload."""
        packets = [
            Packet(schema, packet.data, packet.rows, packet.cursors, packet.continues)
            for packet in self._sent.packets
        ]
        return structs.replace(self._sent, packets=packets)

    def message(
        self,
        packets: Sequence[Packet],
        schema: Schema,
        status: Status | None,
        *,
        missing: bool = False,
        has_ended: bool = False,
    ) -> Outgoing:
        """The message of these packets, or of the status alone."""
        if not self._has_cursors:
            assert self.cursors is not None
            packets, self.cursors = _numbered(packets, self.cursors)
        ranges = [packet.cursors for packet in packets if packet.cursors is not None]
        covered = None
        if ranges:
            self.cursors = ranges[-1]
            covered = CursorRange(ranges[-1].epoch, ranges[0].prev, ranges[-1].last)
        elif self.cursors is not None:
            covered = CursorRange(self.cursors.epoch, self.cursors.last, self.cursors.last)
        self.status = status
        sent = time.time_ns() // 1_000_000
        self._sent = SharedMessage(packets, self.cursors, status, missing, has_ended, sent)
        self.payload = self._codec.encode(self._sent)
        changed: bytes | None = None
        if self._is_first or schema.fingerprint != self.schema.fingerprint:
            self._is_first = False
            self.schema = schema
            changed = self._codec.encode_schema(schema)
        return Outgoing(self.payload, changed, covered if self._has_cursors else None)


def _new_numbers() -> CursorRange:
    """Those of no other rows."""
    return CursorRange(os.urandom(6).hex(), 0, 0)


def _numbered(
    packets: Sequence[Packet], newest: CursorRange
) -> tuple[Sequence[Packet], CursorRange]:
    """The packets with the numbers of their rows, and the newest numbers."""
    found = []
    for packet in packets:
        newest = CursorRange(newest.epoch, newest.last, newest.last + packet.rows)
        found.append(Packet(packet.schema, packet.data, packet.rows, newest, packet.continues))
    return found, newest


def _later(cursors: CursorRange | None, known: CursorRange) -> CursorRange:
    """The newest of the numbers in the log of the engine, and of those that this node knows."""
    if cursors is None or (cursors.epoch == known.epoch and cursors.last < known.last):
        return known
    return cursors


def _parts(packets: Sequence[Packet]) -> Iterator[tuple[Schema, list[Packet]]]:
    """The packets of one message each, and their schema: a message has one schema and one epoch,
    and an engine limits its size."""
    for _, group in groupby(packets, key=_schema_and_epoch):
        part: list[Packet] = []
        size = 0
        for packet in group:
            if part and size + len(packet.data) > PACKET_BYTES:
                yield part[0].schema, part
                part, size = [], 0
            part.append(packet)
            size += len(packet.data)
        yield part[0].schema, part


def _schema_and_epoch(packet: Packet) -> tuple[str, str | None]:
    cursors = packet.cursors
    return packet.schema.fingerprint, None if cursors is None else cursors.epoch


def _after(packets: Sequence[Packet], after: int, kind: CursorKind) -> list[Packet]:
    """The packets without the rows whose cursor is at most `after`."""
    found = []
    for packet in packets:
        cursors = packet.cursors
        if cursors is None or cursors.prev >= after:
            found.append(packet)
        elif cursors.last > after:
            found.append(_cut(packet, cursors, after, kind))
    return found


def _cut(packet: Packet, cursors: CursorRange, after: int, kind: CursorKind) -> Packet:
    rest = CursorRange(cursors.epoch, after, cursors.last)
    if not packet.rows:
        return Packet(packet.schema, packet.data, 0, rest)
    frame = json.decode_rows([packet], packet.schema)
    skip = sum(cursor <= after for cursor in kind.of_block(frame))
    frame = frame_rows.slice_rows(frame, skip, frame.rows)
    return Packet(packet.schema, json.data(frame.fields), frame.rows, rest, packet.continues)
