"""The channels that pushes have made: which there are, and how many there may be."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._pending: Counter[str] = Counter()

    async def load(self, store: Store) -> None:
        """Read those that the store has. Raises StoreError."""
        self._names.update(each.channel for each in await store.channels())

    async def refresh(self, store: Store, path: str) -> None:
        """Read them again if this one is not known: another server may have got its first rows.
        Raises StoreError."""
        if path not in self._names:
            await self.load(store)

    @contextmanager
    def reserve(self, path: str) -> Iterator[None]:
        """While the context lasts, a new path counts as one that there is. When its rows are
        stored, call `add`.

        Raises PushRefused: rows of this path cannot be panels, or there are too many paths.
        """
        self._check(path)
        self._pending[path] += 1
        try:
            yield
        finally:
            self._pending[path] -= 1
            if not self._pending[path]:
                del self._pending[path]

    def _check(self, path: str) -> None:
        if len(path) > self._longest:
            raise PushRefused(
                400,
                f"the path must have at most {self._longest} characters, got {len(path)}: Grafana"
                " refuses longer channels",
            )
        if path in self._names or path in self._pending:
            return
        if len(self._names) + len(self._pending.keys() - self._names) >= self._limit:
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
