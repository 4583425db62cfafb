"""The channels that pushes have made: which there are, and how many there may be."""

from aiostream_ds._paths import CHANNEL_LIMIT
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.stores import Store

__all__ = ["PushChannels"]

_LONGEST_STREAM = "x/table"  # before the path in an exact panel's channel


class PushChannels:
    """The names of the channels of one data source.

    Args:
        uid: of the data source, which is a part of the names that Grafana gives channels.
        limit: how many there may be.
    """

    def __init__(self, uid: str, limit: int) -> None:
        self._limit = limit
        self._longest = CHANNEL_LIMIT - len(f"ds/{uid}/{_LONGEST_STREAM}/")
        self._names: set[str] = set()

    async def load(self, store: Store) -> None:
        """Read those that the store has. Raises StoreError."""
        self._names.update(each.channel for each in await store.channels())

    def check(self, path: str) -> None:
        """Raises PushRefused: rows of this path cannot be panels, or there are too many paths."""
        if len(path) > self._longest:
            raise PushRefused(
                400,
                f"the path must have at most {self._longest} characters, got {len(path)}: Grafana"
                " refuses longer channels",
            )
        if path not in self._names and len(self._names) >= self._limit:
            raise PushRefused(
                429,
                f"expected at most {self._limit:,} channels, which the setting maxChannels allows,"
                f" got a further one: {path!r}",
                retry_after=600,
            )

    def add(self, path: str) -> None:
        """Rows of this path are stored."""
        self._names.add(path)

    def __contains__(self, path: object) -> bool:
        return path in self._names

    def matching(self, typed: str) -> list[str]:
        """The names that contain the typed text."""
        return sorted(name for name in self._names if typed in name)
