"""Names of columns that differ from those that exist."""

from collections.abc import Container

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown

__all__ = ["NAMES_LIMIT", "own_name"]

NAMES_LIMIT = 20
"""Maximum number of columns of a row that would have one name. Without a limit, the time to find
their names grows with the third power of their number."""


def own_name(name: str, *taken: Container[str]) -> str:
    """The name with as many trailing `_` as make it a new one. Raises BadRecord for too many."""
    found = name
    for _ in range(NAMES_LIMIT):
        if not any(found in names for names in taken):
            return found
        found += "_"
    raise BadRecord(f"expected at most {NAMES_LIMIT} values of one name, got more of {shown(name)}")
