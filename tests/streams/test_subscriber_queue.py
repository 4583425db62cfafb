"""The policies of `Buffer`: the same for rows of a Broadcast and messages of an Upstream."""

import asyncio
import logging

import anyio
import pytest

from aiostream_ds import Broadcast, Buffer, UpstreamError
from aiostream_ds.upstream.message_queue import MessageQueue

pytestmark = pytest.mark.virtual


class OfBroadcast:
    items = "rows"

    def __init__(self, **bounds):
        self.broadcast = Broadcast(buffer=Buffer(**bounds), name="feed")
        self.reader = self.broadcast.subscribe()
        self.put = self.broadcast.publish

    async def put_with_space(self, item):
        await self.broadcast.send(item)


class OfUpstream:
    items = "messages"

    def __init__(self, **bounds):
        self.reader = MessageQueue(Buffer(**bounds), "feed")
        self.put = self.reader.put

    async def put_with_space(self, item):
        await self.reader.drain()
        self.put(item)


@pytest.fixture(params=[OfBroadcast, OfUpstream])
def make(request):
    return request.param


async def left_of(queue):
    return [await anext(queue.reader) for _ in range(len(queue.reader._items))]


@pytest.mark.parametrize(
    ("full", "left"), [("drop_oldest", [2, 3, 4]), ("latest", [4]), ("fail", [])]
)
async def test_a_full_queue_applies_its_policy(make, full, left):
    queue = make(rows=3, full=full)
    for number in range(5):
        queue.put(number)
    assert await left_of(queue) == left
    if full == "fail":
        expected = f"feed: expected at most 3 queued {queue.items}, got 4"
        with pytest.raises(UpstreamError, match=expected):
            await anext(queue.reader)


@pytest.mark.parametrize("rows", [1, 2, 10])
async def test_with_block_what_puts_waits_and_nothing_is_lost(make, rows):
    queue = make(rows=rows, full="block")

    async def put_all():
        for number in range(30):
            await queue.put_with_space(number)
            assert len(queue.reader._items) <= rows

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(put_all)
        await anyio.sleep(1)
        assert len(queue.reader._items) == rows
        assert [await anext(queue.reader) for _ in range(30)] == list(range(30))


async def test_with_block_a_subscriber_that_takes_nothing_gets_an_error(make):
    queue = make(rows=2, full="block", stall_timeout=5)
    begun = anyio.current_time()
    for number in range(4):
        await queue.put_with_space(number)
    assert anyio.current_time() - begun == 5
    assert await left_of(queue) == [0, 1]
    with pytest.raises(UpstreamError, match="feed: the subscriber has taken nothing for 5 s"):
        await anext(queue.reader)


async def test_with_block_a_slow_subscriber_is_waited_for(make):
    queue = make(rows=2, full="block", stall_timeout=5)
    found = []

    async def read():
        for _ in range(6):
            await anyio.sleep(4)
            found.append(await anext(queue.reader))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        for number in range(6):
            await queue.put_with_space(number)
    assert found == list(range(6))


async def test_drops_are_logged_when_they_begin_and_when_they_have_ended(make, caplog):
    queue = make(rows=1)
    with caplog.at_level(logging.WARNING):
        for number in range(11):
            queue.put(number)
        await anyio.sleep(9)
        assert await left_of(queue) == [10]  # an empty queue is not the end: it may fill again
        for number in range(11):
            queue.put(number)
        await anyio.sleep(20)
    assert caplog.messages == [
        f"feed: a subscriber is too slow: {queue.items} are dropped",
        f"feed: caught up; 20 {queue.items} were dropped",
    ]


async def test_with_latest_drops_are_not_logged(make, caplog):
    queue = make(full="latest")
    with caplog.at_level(logging.WARNING):
        for number in range(11):
            queue.put(number)
        await anyio.sleep(20)
    assert caplog.messages == []


async def test_a_second_reader_is_refused(make):
    queue = make()
    pending = asyncio.ensure_future(anext(queue.reader))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="feed: expected one task to read a subscription, got"):
        await anext(queue.reader)
    queue.put(1)
    assert await pending == 1


async def test_a_timeout_around_the_next_one_loses_none(make):
    queue = make()
    with anyio.move_on_after(1):
        await anext(queue.reader)
    queue.put(1)
    assert await anext(queue.reader) == 1
