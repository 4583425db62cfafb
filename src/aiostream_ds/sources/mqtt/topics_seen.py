"""The topics of a broker that have messages: for suggestions and Save & test."""

from collections.abc import Sequence

import anyio

from aiostream_ds.errors import BadQuery, PermissionDenied, PluginError, copy_error
from aiostream_ds.sources.mqtt.broker import open_connection
from aiostream_ds.sources.mqtt.broker_connection import BrokerConnection, ConnectOptions
from aiostream_ds.sources.mqtt.topic_filters import check_filter

__all__ = ["TopicsSeen", "listen"]

SECONDS = 1.0
"""Seconds for which the filter is subscribed to."""

MESSAGES = 5_000
"""Messages after which the subscription ends before."""

TOPICS = 2_000
"""Topics after which the subscription ends before, and that are suggested."""

AGE = 30.0
"""Seconds after which the topics are looked for again."""


class TopicsSeen:
    """The topics of a filter, looked for at most every `AGE` seconds, by one task at a time."""

    def __init__(self, options: ConnectOptions, text: str, *, any_version: bool) -> None:
        self._options = options._replace(client_id=f"{options.client_id}-topics")
        self._filter = text
        self._any_version = any_version
        self._lock = anyio.Lock()
        self._found: list[str] = []
        self._error: PluginError | None = None
        self._at: float | None = None
        self.version = 0
        """The version of MQTT of the last connection; 4 is 3.1.1."""
        self.refusal = ""
        """Why the broker refuses the filter."""

    async def topics(self, *, again: bool = False) -> Sequence[str]:
        """The topics, sorted; none without a filter. Safe to cancel.

        Args:
            again: look for them now, and only connect if there is no filter.

        Raises:
            PluginError: the broker cannot be reached, or refuses the client.
        """
        async with self._lock:
            if again or self._at is None or anyio.current_time() - self._at > AGE:
                self._error = None
                try:
                    await self._look()
                except PluginError as error:
                    self._error = error
                self._at = anyio.current_time()
        if self._error is not None:
            raise copy_error(self._error)
        return self._found

    async def _look(self) -> None:
        found = set(self._found)
        connection = await open_connection(self._options, any_version=self._any_version)
        self.version = connection.options.version
        try:
            self.refusal = ""
            if self._filter:
                check_filter(self._filter)
                found |= await listen(connection, self._filter)
        except (BadQuery, PermissionDenied) as error:
            self.refusal = error.message
        finally:
            await connection.close()
        self._found = sorted(found)[:TOPICS]


async def listen(connection: BrokerConnection, text: str) -> set[str]:
    """The topics of a filter that have a message within a second."""
    found: set[str] = set()
    count = 0
    has_enough = anyio.Event()

    async def look() -> None:
        nonlocal count
        while True:
            arrivals = await connection.arrivals.take()
            count += len(arrivals)
            if not has_enough.is_set():
                found.update(each.message.topic for each in arrivals)
                if count >= MESSAGES or len(found) >= TOPICS:
                    has_enough.set()

    async with anyio.create_task_group() as tasks:
        # retained messages may come before the answer
        tasks.start_soon(look)
        await connection.subscribe(text, 0)
        with anyio.move_on_after(SECONDS):
            await has_enough.wait()
        tasks.cancel_scope.cancel()
    return found
