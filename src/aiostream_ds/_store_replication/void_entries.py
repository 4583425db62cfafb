"""Which entries of the log are void because a server could not read them, and no other one could.

The log has the decision, as an entry that names them. So a server that was away then, and can read
them, comes to the same rows as the others: it writes the rows of the void entries again.
"""

from collections.abc import Iterable, Sequence

from aiostream_ds._cluster.engine import Engine, EntryId
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._loggers import get_logger
from aiostream_ds._store_replication.store_entries import StoreEntry, StoreEntryCodec, decision
from aiostream_ds._store_replication.store_filling import StoreFiller

__all__ = ["SHARED_OWNER", "VoidEntries"]

log = get_logger(__name__)

SHARED_OWNER = "stores"
"""The name under which all servers take the channel: it never has a lease."""

_PAGE = 100  # entries that are read at once


class VoidEntries:
    """The decisions of one log, as far as this server has read it.

    Attributes:
        undecided: entries that cannot be read here, of which the log has no decision yet; what
            follows them is not stored before.
        new: void entries of which a decision was read, and the newest such decision, since the user
            of this class has taken them.
    """

    def __init__(
        self, name: str, engine: Engine, codec: StoreEntryCodec, filler: StoreFiller
    ) -> None:
        self._name, self._engine, self._codec, self._filler = name, engine, codec, filler
        self._ids: set[EntryId] = set()
        self.undecided: list[EntryId] = []
        self.new: dict[EntryId, EntryId] = {}

    def __contains__(self, id: object) -> bool:
        return id in self._ids

    def forget(self) -> None:
        """The engine may have lost decisions."""
        self._ids.clear()
        self.new = {}
        self.undecided = []

    def learn(self, entries: Iterable[tuple[EntryId, StoreEntry | None]]) -> None:
        """The decisions among these entries."""
        for id, content in entries:
            if content is not None and content.void:
                self._ids.update(content.void)
                self.new |= dict.fromkeys(content.void, id)

    async def decide(self, ids: Sequence[EntryId]) -> None:
        """Write that these entries are void, unless the log has it.

        Raises:
            NotVoid: another server can read one of them.
            EngineError: another one does not answer.
        """
        self.undecided = []
        left = await self._without_decision(ids)
        for id in left:
            await self._filler.confirm_void(id)
        if left and (left := await self._without_decision(left)):
            log.warning("%d entries of a shared store are void: no server can read them", len(left))
            payload = self._codec.encode(decision(left))
            await self._engine.take(self._name, SHARED_OWNER, payload)

    async def _without_decision(self, ids: Sequence[EntryId]) -> list[EntryId]:
        """Those that the rest of the log does not name as void."""
        left = [id for id in ids if id not in self._ids]
        after = min(left, default=None)
        while after is not None:
            page = await self._engine.read(self._name, after, _PAGE)
            for entry in page.entries:
                try:
                    self.learn([(entry.id, self._codec.decode(entry.payload))])
                except UnreadableMessage:
                    continue
            left = [id for id in left if id not in self._ids]
            after = None if page.is_end or not left else page.entries[-1].id
        return left
