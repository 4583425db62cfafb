"""Where the store of a server continues in the log: its entries without their rows, which may be
more than a process has memory for."""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from aiostream_ds._cluster.engine import EntryId
from aiostream_ds._store_replication.store_entries import NO_TAG, StoreEntry

__all__ = ["Place", "before", "line_from", "overlap", "place_of", "successor_of", "without_void"]

_NUMBERS = 1 << 40  # more than a term has entries


class Place(NamedTuple):
    """An entry of the log. `first` and `ids` are as in `StoreLink`."""

    id: EntryId
    tag: bytes
    after: bytes
    epoch: str
    first: Mapping[str, int]
    ids: Mapping[str, Sequence[tuple[int, bytes]]]


def place_of(id: EntryId, content: StoreEntry) -> Place:
    """The place of an entry."""
    return Place(
        id, content.tag, content.after, content.epoch, content.first_cursors(), content.ids()
    )


def before(id: EntryId) -> EntryId:
    """After which id the log is read to begin with an entry, which is the first of its term. The
    entries before it may be removed: a page that begins with it is not truncated."""
    return EntryId(id.term - 1, _NUMBERS)


def successor_of(places: Sequence[Place], tag: bytes) -> int | None:
    """Where the log goes on after an entry that it does not have any more; None: not in it. The
    first entry that names it counts, unless that was removed, too: others have no successors."""
    parents = {place.after for place in places}
    found = next((n for n, place in enumerate(places) if place.after == tag), None)
    if found is None or places[found].tag in parents:
        return found
    return None if any(place.tag in parents for place in places[found + 1 :]) else found


def line_from(places: Sequence[Place], first: EntryId, tag: bytes) -> list[Place] | None:
    """The entries of one chain from an id to the entry with this tag; empty: the entry with this id
    is not of that chain. None: an entry between them is not among the places."""
    by_tag = {place.tag: place for place in places}
    found: list[Place] = []
    place = by_tag.get(tag)
    while place is not None and place.id > first:
        found.append(place)
        place = by_tag.get(place.after)
    if place is not None and place.id == first:
        return [place, *reversed(found)]
    is_another = place is not None or (found and found[-1].after == NO_TAG)
    return [] if is_another else None


def without_void(places: Sequence[Place], void: Container[EntryId]) -> list[Place]:
    """The places without these entries, and without those that go on after them."""
    found: list[Place] = []
    tags: set[bytes] = set()
    for place in places:
        if place.id in void or place.after in tags:
            tags.add(place.tag)
        else:
            found.append(place)
    return found


def overlap(places: Sequence[Place], lasts: Mapping[str, int]) -> bool:
    """Whether entries give cursors to rows that a store with these last ones has."""
    firsts = (each for place in places for each in place.first.items())
    return any(first <= lasts.get(channel, 0) for channel, first in firsts)
