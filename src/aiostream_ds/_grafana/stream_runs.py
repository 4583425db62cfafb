"""Joins a RunStream call to its channel, with the policy and the runner of the stream.

The runner of a stream with a cursor first asks for the newest cursor. It emits the rows that the
method misses: those of an outage, and those that were written before its first row.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiostream_ds._author_threads import threads_of
from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Policy
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._declared_errors import table_of
from aiostream_ds._encoding.cursor_encoder import CursorEncoder
from aiostream_ds._encoding.cursor_kinds import CursorKind
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds._grafana.replay import REPLAY_ROWS, RowReplay, shared_streams
from aiostream_ds._loggers import get_logger
from aiostream_ds._streams.gap_filling import GapFiller
from aiostream_ds._streams.supervisor import supervise
from aiostream_ds._telemetry import Counters
from aiostream_ds.datasource import DataSource
from aiostream_ds.rows import Cursor

if TYPE_CHECKING:
    from aiostream_ds._cluster.shared_log import SharedLog
    from aiostream_ds._grafana.shared_streams import SharedStreams

__all__ = ["join"]

log = get_logger(__name__)


def join(
    registry: ChannelRegistry,
    replay: RowReplay,
    request: ChannelRequest,
    counters: Counters,
    *,
    with_status: bool = False,
) -> Subscription:
    """Subscribe to the channel; starts its stream if it is not running.

    `with_status` also wakes a subscriber that does not follow the exact channel when the status
    changes. Raises what `ChannelRegistry.join` raises.
    """
    options = request.stream.options
    has_history = options.cursor is not None or request.stream.history is not None
    policy = options.policy if has_history else options.policy_with_replay
    key = request.key  # one object for the channel, its supervisor and the registry
    shared = shared_streams(request)
    if shared is None:
        if options.share == "cluster":
            _report_not_shared(request)
        runner = _runner(key, registry, replay, request, counters)
    else:
        policy, runner = _share(key, shared, replay, request, counters, policy)
    subscription = registry.join(
        key,
        runner,
        policy,
        request.instance.generation,
        exact=request.exact or with_status,
    )
    if options.keep_running and not with_status and request.instance.kept is not None:
        request.instance.kept.watched(request.path)
    if request.exact and options.cursor is None:
        replay.log(request)  # from now on the channel has a log
    return subscription


def _report_not_shared(request: ChannelRequest) -> None:
    """Log once for each instance why its streams run for this server only."""
    instance = request.instance
    if instance.is_not_shared_reported:
        return
    instance.is_not_shared_reported = True
    shared: SharedStreams | None = instance.cluster
    reason = shared.problem if shared is not None else instance.sharing_problem
    log.warning(
        "streams are not shared with other Grafana servers: %s",
        reason,
        extra={"path": request.path},
    )


def _share(
    key: ChannelKey,
    shared: "SharedStreams",
    replay: RowReplay,
    request: ChannelRequest,
    counters: Counters,
    policy: Policy,
) -> tuple[Policy, Runner]:
    """The policy and the runner of a channel that the servers of a cluster share."""
    from aiostream_ds._grafana.shared_channel import SharedStream

    viewers, stream = shared.policies(policy)
    kind = request.stream.cursor
    row_log = replay.log(request) if kind is None else None
    author = SharedStream(
        key,
        _runner(key, shared.inner, replay, request, counters),
        stream,
        kind,
        cast("SharedLog | None", row_log),
        replay.row_encoder(request).learn,
    )
    return viewers, shared.runner(request, author)


def _runner(
    key: ChannelKey,
    registry: ChannelRegistry,
    replay: RowReplay,
    request: ChannelRequest,
    counters: Counters,
) -> Runner:
    instance, options = request.instance, request.stream.options
    row_encoder = replay.row_encoder(request)
    author = _AuthorMethod(instance.source, request.stream.name, request.arguments)
    run = partial(
        supervise,
        key=key,
        delays=instance.delays,
        counters=counters,
        options=options,
        declare=table_of(type(instance.source)).find,
        read_in_thread=author.read_in_thread,
    )
    kind = request.stream.cursor
    if kind is None:
        prepare = None if options.status_column is None else partial(_attach, row_encoder)
        return run(author, row_encoder.encode, prepare=prepare)
    return _cursor_runner(registry, replay, request, counters, kind, run)


class _AuthorMethod:
    """The author's method with the arguments of one path. Calling it creates the generator."""

    __slots__ = ("_arguments", "_name", "_source")

    def __init__(self, source: DataSource[Any], name: str, arguments: Mapping[str, Any]) -> None:
        self._source = source
        self._name = name
        self._arguments = arguments

    def __call__(self) -> AsyncGenerator[Any, None]:
        rows: AsyncGenerator[Any, None] = getattr(self._source, self._name)(**self._arguments)
        return rows

    def read_in_thread(self, read: Callable[[Any], Any], table: Any) -> Awaitable[Any]:
        """See `ReadInThread`."""
        return threads_of(self._source).call(self._name, partial(read, table))


async def _attach(row_encoder: RowEncoder, channel: Channel) -> None:
    row_encoder.attach(channel)


def _cursor_runner(
    registry: ChannelRegistry,
    replay: RowReplay,
    request: ChannelRequest,
    counters: Counters,
    kind: CursorKind,
    run: Callable[..., Runner],
) -> Runner:
    """The runner of a stream with a cursor. Apart, because each channel has the closures here."""
    instance, options, arguments = request.instance, request.stream.options, request.arguments
    method: Callable[..., AsyncGenerator[Any, None]] = getattr(instance.source, request.stream.name)
    row_encoder = replay.row_encoder(request)
    encoder = CursorEncoder(row_encoder, kind, counters)
    recorder = None
    if options.store is not None:
        from aiostream_ds._streams.row_recording import (
            RecordingProducer,
            RowRecorder,
        )  # rarely used

        store = instance.source.row_store
        store.retain(request.path, options.store)
        recorder = RowRecorder(store, request.path, encoder, counters)
        run = partial(run, make_producer=partial(RecordingProducer, recorder))
    filler = GapFiller(
        partial(replay.read_after, request), REPLAY_ROWS, encoder, request.path, counters
    )

    async def find_cursor(channel: Channel) -> None:
        """Make the encoder's cursor known, and emit rows that were missed since it was."""
        if options.status_column is not None:
            row_encoder.attach(channel)
        # the last cursor of the code that a reload has replaced, or in the log of a cluster
        cursors = registry.resume_points.pop(request.key, None)
        resumed = encoder.has_begun or cursors is not None
        if cursors is not None:
            encoder.resume(Cursor(cursors.epoch, cursors.last))
        elif not encoder.has_begun:
            encoder.begin(await replay.newest_cursor(request))
        if resumed and options.retry.fill:
            await filler.catch_up(channel)
        channel.emit(encoder.cursor_packet)

    return run(
        (lambda: method(**arguments))
        if recorder is not None
        else (lambda: method(kind.cursor_to_author(encoder.cursor), **arguments)),
        encoder.encode,
        prepare=find_cursor,
        filler=filler if options.retry.fill and recorder is None else None,
    )
