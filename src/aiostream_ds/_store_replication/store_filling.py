"""Brings a store that was away for too long to the state of another server's, by requests to it.

    state  ──▶ what the other one has: its last entry, and the last cursor of each channel
    rows   ──▶ those after a cursor, part by part; then the keys of the batches

The rows up to these cursors do not change any more: when all are there, the store is where the
other one was, and goes on with the log.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from aiostream_ds._cluster.engine import EngineError, EntryId
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._loggers import get_logger
from aiostream_ds._store_replication.store_chain import StoreChain, StoreLink
from aiostream_ds._store_replication.store_entries import NO_TAG, StoreEntryCodec
from aiostream_ds._store_replication.store_places import before
from aiostream_ds._store_replication.store_recovery import stored_run
from aiostream_ds.errors import NotFound, PluginError
from aiostream_ds.stores import StoreError
from aiostream_ds.stores.row_blocks import Piece
from aiostream_ds.stores.sqlite_reader import StoredKey
from aiostream_ds.stores.sqlite_store import SqliteStore
from aiostream_ds.stores.sqlite_writer import ReplicaBatch, ReplicaKey

__all__ = ["FILL_KIND", "NotVoid", "StoreFiller", "other_history"]

log = get_logger(__name__)

FILL_KIND = "store"

_SECONDS = 5.0  # until another server must have answered
_ROWS = 2_000
_BYTES = 300 << 10
_KEYS = 2_000


class _Question(msgspec.Struct, array_like=True, frozen=True):
    """`tags`: the newest entries of the asking store. With a channel: its rows after a cursor, or
    with `keys` its keys after a number. With an entry: whether the other server can read it."""

    name: str
    tags: list[bytes] = []
    channel: str = ""
    after: int = 0
    upto: int = 0
    keys: bool = False
    entry: EntryId | None = None


class _State(msgspec.Struct, array_like=True, frozen=True):
    """`links`: of the newest entries, as many as fit in a message. `common`: the newest one of the
    entries that both stores have; None: none is known."""

    tag: bytes
    epoch: str
    id: EntryId
    links: list[StoreLink]
    lasts: dict[str, int]
    common: bytes | None


class _Rows(msgspec.Struct, array_like=True, frozen=True):
    """Rows with consecutive cursors from `first` on, which is later than what was asked for if the
    store does not have it: rows before `oldest` were removed, later ones it lacks, too."""

    first: int
    pieces: list[Piece]
    oldest: int


_encode = msgspec.msgpack.Encoder().encode
_decode_question = msgspec.msgpack.Decoder(_Question).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode
_decode_rows = msgspec.msgpack.Decoder(_Rows).decode
_decode_bool = msgspec.msgpack.Decoder(bool).decode
_decode_keys = msgspec.msgpack.Decoder(list[StoredKey]).decode


class NotVoid(EngineError):
    """Another server can read an entry that this one cannot: only an administrator ends that."""


class Fillable(Protocol):
    """What `StoreReplica` has."""

    name: str
    store: SqliteStore
    chain: StoreChain
    lasts: dict[str, int]

    async def rewind(self, tag: bytes) -> None: ...


class StoreFiller:
    """Asks other servers, and answers them, for one store."""

    def __init__(
        self,
        replica: Fillable,
        requests: NodeRequests,
        node: ClusterNode,
        codec: StoreEntryCodec,
    ) -> None:
        self._replica = replica
        self._requests = requests
        self._node = node
        self._codec = codec

    # -- asking --------------------------------------------------------------------------------

    async def fill(self) -> bool:
        """Get what another server has. False: none has anything.

        Raises:
            EngineError: a server that may have it does not answer; or the transfer was interrupted,
                and goes on when this is called again.
            StoreError: the rows of this store are not of the same history.
        """
        name, me = self._replica.name, self._node.name
        others = sorted(await self._node.engine.members(name) - {me})
        problem: Exception | None = None
        for node in others:
            try:
                state = _decode_state(
                    await self._ask(node, _Question(name, list(self._replica.chain.links)))
                )
            except NotFound:
                continue
            except (EngineError, PluginError) as error:
                problem = error
                continue
            if state.tag != NO_TAG:
                await self._go_to(node, state)
                return True
        if problem is not None:
            raise EngineError(f"what this server lacks was not received: {problem}")
        return False

    async def confirm_void(self, id: EntryId) -> None:
        """An entry that this server cannot read is void: no other one can read it.

        Raises:
            NotVoid: another one can read it.
            EngineError: another one does not answer.
        """
        name, me = self._replica.name, self._node.name
        for node in sorted(await self._node.engine.members(name) - {me}):
            try:
                is_readable = _decode_bool(await self._ask(node, _Question(name, entry=id)))
            except NotFound:
                continue
            except (EngineError, PluginError, UnreadableMessage) as error:
                raise EngineError(
                    f"an entry of the log cannot be read, and the server {node} does not answer"
                    f" whether it can read it: {error}"
                ) from error
            if is_readable:
                raise NotVoid(
                    f"an entry of the log can be read by the server {node}, but not here: all"
                    " servers need the same cluster_encryption_keys and version of the plugin"
                )

    async def _ask(self, node: str, question: _Question) -> bytes:
        payload = self._codec.seal(_encode(question))
        request = _encode((self._replica.name, payload))
        answer = await self._requests.request(node, FILL_KIND, request, _SECONDS)
        return self._codec.open(answer)

    async def _go_to(self, node: str, state: _State) -> None:
        replica = self._replica
        chain: StoreChain = replica.chain
        if state.common is not None and state.common != chain.tag:
            await replica.rewind(state.common)
        elif state.common is None and chain.tag != NO_TAG and chain.epoch != state.epoch:
            raise other_history(replica.store)
        log.info("a shared store is filled from the server %s", node)
        missing = 0
        for channel, last in state.lasts.items():
            missing += await self._get_channel(node, channel, last)
        chain = replica.chain.copy()
        chain.missing += missing
        chain.adopt(state.tag, state.id, state.epoch, state.links)
        await replica.store.replicate(
            [], {**chain.stored_links(), **chain.end()}, epoch=state.epoch
        )
        replica.chain = chain
        if missing:
            log.error("the server %s lacks %d rows, and so does this one", node, missing)

    async def _get_channel(self, node: str, channel: str, last: int) -> int:
        """Returns how many rows the other one lacks."""
        replica = self._replica
        missing = 0
        question = _Question(replica.name, [], channel, upto=last)
        while (after := replica.lasts.get(channel, 0)) < last:
            asked = msgspec.structs.replace(question, after=after)
            found = _decode_rows(await self._ask(node, asked))
            missing += max(found.first - max(after + 1, found.oldest), 0)
            batch = ReplicaBatch(channel, found.first, found.pieces, None, 0)
            await replica.store.replicate([batch], {})
            replica.lasts[channel] = batch.last
        number = 0
        while True:
            asked = msgspec.structs.replace(question, after=number, keys=True)
            keys = _decode_keys(await self._ask(node, asked))
            if not keys:
                return missing
            number = keys[-1].number
            await replica.store.replicate(
                [],
                {},
                keys=[
                    ReplicaKey(channel, key.key, key.first, key.last, key.stored)
                    for key in keys
                    if key.last <= last
                ],
            )

    # -- answering -----------------------------------------------------------------------------

    async def answer(self, payload: bytes) -> bytes:
        """See `RequestHandler`."""
        question = _decode_question(self._codec.open(payload))
        if question.entry is not None:
            return self._codec.seal(_encode(await self._can_read(question.entry)))
        if not question.channel:
            return self._codec.seal(_encode(self._state(question.tags)))
        if question.keys:
            keys = await self._replica.store.keys_after(question.channel, question.after, _KEYS)
            return self._codec.seal(_encode(keys))
        return self._codec.seal(_encode(await self._rows(question)))

    async def _can_read(self, id: EntryId) -> bool:
        page = await self._node.engine.read(self._replica.name, before(id), 1)
        if not page.entries or page.entries[0].id != id:
            return False
        try:
            self._codec.decode(page.entries[0].payload)
        except UnreadableMessage:
            return False
        return True

    def _state(self, tags: Sequence[bytes]) -> _State:
        chain, lasts = self._replica.chain, self._replica.lasts
        common = next((tag for tag in reversed(tags) if chain.knows(tag)), None)
        links = _newest(list(chain.links.values()))
        return _State(chain.tag, chain.epoch, chain.id, links, dict(lasts), common)

    async def _rows(self, question: _Question) -> _Rows:
        store = self._replica.store
        first, pieces, oldest = await stored_run(
            store, question.channel, question.after, question.upto, _ROWS
        )
        while len(pieces) > 1 and sum(len(piece.data) for piece in pieces) > _BYTES:
            pieces.pop()
        return _Rows(first, pieces, oldest)


def _newest(links: Sequence[StoreLink]) -> list[StoreLink]:
    """The newest of these that fit in a message, oldest first: of an entry with many batches a link
    is long. A store with fewer of them is filled again more often, after losses of the engine."""
    found: list[StoreLink] = []
    size = 0
    for link in reversed(links):
        size += len(_encode(link))
        if size > _BYTES:
            break
        found.append(link)
    return found[::-1]


def other_history(store: SqliteStore) -> StoreError:
    """The error of a store whose rows have the cursors of other rows."""
    return StoreError(
        f"the rows in {store.path or 'memory'} are not those of the other servers, which have begun"
        " again without them; give this server another directory, or remove the file on all others"
        " and restart them"
    )
