"""How far a store has followed the log that several servers share: the entries that it has.

It is stored with the rows, in one transaction, and survives a crash with them.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from aiostream_ds._cluster.engine import START, EntryId
from aiostream_ds._store_replication.store_entries import NO_TAG, StoreEntry

__all__ = ["META", "StoreChain", "StoreLink"]

META = "cluster "
"""Begins the names of what is stored."""

LINKS = 1_000
"""Newest entries that a store knows by their tags: those that the engine may lose."""

_END = META + "end"


class StoreLink(NamedTuple):
    """An entry that the store has.

    Attributes:
        tag: its own.
        first: the first cursor that it has given to each channel.
        id: where it was in the log; START: not known.
        ids: the first cursors and ids of its batches without a key, by channel.
    """

    tag: bytes
    first: Mapping[str, int]
    id: EntryId = START
    ids: Mapping[str, Sequence[tuple[int, bytes]]] = {}


class _End(msgspec.Struct, array_like=True, frozen=True):
    number: int
    tag: bytes
    epoch: str
    id: EntryId
    missing: int


class _Link(msgspec.Struct, array_like=True, frozen=True):
    number: int
    tag: bytes
    first: dict[str, int]
    id: EntryId = START
    ids: dict[str, list[tuple[int, bytes]]] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_end = msgspec.msgpack.Decoder(_End).decode
_decode_link = msgspec.msgpack.Decoder(_Link).decode


class StoreChain:
    """The entries that a store has.

    Attributes:
        tag: of the last one.
        id: where that is in the log, as far as it is known.
        epoch: of the channels.
        number: how many entries there were.
        missing: rows that the store does not have, since it was away for too long.
        links: the newest entries by their tags, oldest first.
    """

    def __init__(self, stored: Mapping[str, bytes]) -> None:
        self.tag, self.id, self.epoch = NO_TAG, START, ""
        self.number = self.missing = 0
        self.links: OrderedDict[bytes, StoreLink] = OrderedDict()
        self._start: bytes | None = None  # the entry before the oldest link, if that is known
        if _END not in stored:
            return
        self.number, self.tag, self.epoch, self.id, self.missing = msgspec.structs.astuple(
            _decode_end(stored[_END])
        )
        found = [_decode_link(value) for name, value in stored.items() if name != _END]
        for link in sorted(found, key=lambda link: link.number):
            if self.number - LINKS < link.number <= self.number:
                self.links[link.tag] = StoreLink(link.tag, link.first, link.id, link.ids)

    def copy(self) -> "StoreChain":
        """One that can be changed apart."""
        found = copy.copy(self)
        found.links = self.links.copy()
        return found

    def knows(self, tag: bytes) -> bool:
        """Whether the store has this entry, as far as it remembers."""
        return tag == self.tag or tag in self.links or (tag == NO_TAG and self._is_complete)

    def has(self, id: EntryId) -> bool:
        """Whether the store has the entry with this id, also if it cannot be read any more."""
        return any(link.id == id for link in self.links.values())

    @property
    def _is_complete(self) -> bool:
        """Whether it remembers all entries."""
        return self.number == len(self.links)

    def continues_with(self, entry: StoreEntry) -> bool:
        """Whether an entry is the next one."""
        return entry.after == self.tag and not self.knows(entry.tag)

    def add(self, entry: StoreEntry, id: EntryId) -> dict[str, bytes | None]:
        """The store has a further entry. Returns what has to be stored."""
        made = StoreLink(entry.tag, entry.first_cursors(), id, entry.ids())
        self.tag, self.id, self.epoch = entry.tag, id, entry.epoch
        self.number += 1
        self.links[entry.tag] = made
        while len(self.links) > LINKS:
            self._start, _ = self.links.popitem(last=False)
        return {f"{META}{self.number % LINKS}": _encode((self.number, *made)), **self.end()}

    def end(self) -> dict[str, bytes | None]:
        """What has to be stored if no entry is added."""
        end = _End(self.number, self.tag, self.epoch, self.id, self.missing)
        return {_END: _encode(end)}

    def after(self, tag: bytes) -> list[StoreLink]:
        """The entries after one that is known, oldest first."""
        links = list(self.links.values())
        if tag in (NO_TAG, self._start):
            return links
        names = [link.tag for link in links]
        return links[names.index(tag) + 1 :]

    def before(self, entry: StoreLink) -> bytes | None:
        """The entry before a known one; None: it is not known."""
        names = list(self.links)
        number = names.index(entry.tag)
        if number:
            return names[number - 1]
        return NO_TAG if self._is_complete else self._start

    def may_have_forgotten(self, void: EntryId, decision: EntryId) -> bool:
        """Whether the store may have this void entry, and the links do not reach back to it. What
        the log had decided before the newest entry was respected when that was stored."""
        ids = [link.id for link in self.links.values() if link.id != START]
        return bool(ids) and not self._is_complete and void < ids[0] and decision > ids[-1]

    def remember(self, older: Sequence[StoreLink], start: bytes) -> None:
        """The store has these entries before its oldest link, and `start` before them."""
        self.links = OrderedDict((link.tag, link) for link in (*older, *self.links.values()))
        self._start = start

    def rewind(self, tag: bytes) -> dict[str, int]:
        """Forget the entries after one that is known. Returns the last cursor of each channel that
        has changed since then."""
        lasts: dict[str, int] = {}
        for link in reversed(self.after(tag)):
            for channel, first in link.first.items():
                lasts[channel] = first - 1
            del self.links[link.tag]
            self.number -= 1
        self.tag, self.id = tag, START
        return lasts

    def adopt(self, tag: bytes, id: EntryId, epoch: str, links: Sequence[StoreLink]) -> None:
        """The store has what another one has, whose newest entries these are."""
        self.tag, self.id, self.epoch = tag, id, epoch
        self.links = OrderedDict((link.tag, link) for link in links[-LINKS:])
        self._start = None
        self.number += LINKS + 1  # more than it remembers: there may be older ones

    def stored_links(self) -> dict[str, bytes | None]:
        """All entries, as they have to be stored after `adopt`."""
        first = self.number - len(self.links) + 1
        return {
            f"{META}{number % LINKS}": _encode((number, *link))
            for number, link in enumerate(self.links.values(), first)
        }
