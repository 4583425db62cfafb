"""The subjects that have messages, for suggestions."""

from collections.abc import Sequence

import anyio

from aiostream_ds.errors import PluginError
from aiostream_ds.sources.nats.server_link import ServerLink
from aiostream_ds.sources.nats.subject_filters import read_subject_query

__all__ = ["SubjectsSeen"]

SECONDS = 1.0
"""Seconds for which the filter is subscribed to."""

MESSAGES = 5_000
"""Messages after which the subscription ends before."""

SUBJECTS = 2_000
"""Subjects after which the subscription ends before, and that are suggested."""

AGE = 30.0
"""Seconds after which subjects are looked for again."""


class SubjectsSeen:
    """The subjects of a filter, looked for at most every `AGE` seconds, by one task at a time."""

    def __init__(self, link: ServerLink, filter: str) -> None:
        self._link = link
        self._filter = filter
        self._lock = anyio.Lock()
        self._found: Sequence[str] = ()
        self._at: float | None = None

    async def subjects(self) -> Sequence[str]:
        """The subjects, sorted; none without a filter. Safe to cancel.

        Raises:
            PluginError: the server cannot be reached, or refuses the subscription.
        """
        if not self._filter:
            return ()
        async with self._lock:
            if self._at is None or anyio.current_time() - self._at > AGE:
                try:
                    self._found = sorted({*self._found, *await self._look()})[:SUBJECTS]
                except PluginError:
                    self._at = anyio.current_time()
                    raise
                self._at = anyio.current_time()
        return self._found

    async def _look(self) -> set[str]:
        query = read_subject_query(self._filter)
        found: set[str] = set()
        async with self._link.follow(query.filter) as messages:
            with anyio.move_on_after(SECONDS):
                for _ in range(MESSAGES):
                    message = await anext(messages)
                    if query.is_for(message.subject):
                        found.add(message.subject)
                    if len(found) >= SUBJECTS:
                        break
        return found
