"""What `Upstream.follow` returns: the messages of one key, for one subscriber."""

from collections.abc import Awaitable, Callable
from typing import Generic, Self, TypeVar

from aiostream_ds._loop_calls import call_in
from aiostream_ds._run_scope import close_with_run
from aiostream_ds.upstream.followed_key import FollowedKey
from aiostream_ds.upstream.message_queue import MessageQueue

__all__ = ["FollowedMessages"]

MessageT = TypeVar("MessageT")

Join = Callable[[], tuple[MessageQueue[MessageT], FollowedKey[MessageT]]]


class FollowedMessages(Generic[MessageT]):
    """The messages of a key: an async context manager, and an async iterator.

        async for message in self.topics.follow(topic): ...

    The iterator subscribes at the first message that is asked for, until the run of the stream
    ends, or nothing refers to it any more. With `async with` the subscription ends with the block.
    Safe to cancel: a timeout around `anext` loses no message.
    """

    __slots__ = ("__weakref__", "_is_open", "_join", "_joined")

    def __init__(self, join: Join[MessageT]) -> None:
        self._join: Join[MessageT] | None = join
        self._joined: tuple[MessageQueue[MessageT], FollowedKey[MessageT]] | None = None
        self._is_open = False

    async def __aenter__(self) -> MessageQueue[MessageT]:
        if self._join is None:
            raise RuntimeError("expected one `async with` for each call of follow(), got another")
        try:
            return await self._open()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[MessageT]:
        if self._is_open and self._joined is not None:  # without a coroutine around the queue's
            return self._joined[0].__anext__()
        return self._first()

    async def aclose(self) -> None:
        """Leave: drop the messages in the queue. Needed only where something still refers to this
        outside of a stream."""
        self._leave()

    async def _first(self) -> MessageT:
        return await (await self._open()).__anext__()

    async def _open(self) -> MessageQueue[MessageT]:
        if self._joined is None:
            if self._join is None:
                raise StopAsyncIteration
            self._joined, self._join = self._join(), None
            close_with_run(self)
        queue = self._joined[0]
        await queue.wait_until_subscribed()
        self._is_open = True
        return queue

    def _leave(self) -> None:
        self._join = None
        if self._joined is not None:
            joined, self._joined = self._joined, None
            _leave(*joined)

    def __del__(self) -> None:
        if self._joined is not None:
            call_in(self._joined[0].loop, _leave, *self._joined)  # collected in any thread


def _leave(queue: MessageQueue[MessageT], key: FollowedKey[MessageT]) -> None:
    queue.close()
    key.leave(queue)
