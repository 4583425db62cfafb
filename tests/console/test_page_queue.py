"""The queue of a page is bounded, and dropped packets are counted."""

import json

import pytest

from aiostream_ds.console import page_queue as module
from aiostream_ds.console.page_queue import FollowedChannel, PageQueue, QueueOverflow

SCHEMA = b'{"schema":{"fields":[]},"data":{"values":[[1]]}}'
DATA = b'{"data":{"values":[[%d]]}}'


async def test_queued_messages_are_received_together_in_order():
    queue = PageQueue()
    one, two = FollowedChannel(queue, 1, "a"), FollowedChannel(queue, 2, "b")
    queue.put({"id": 9, "ok": True})
    for channel in (one, two, one):
        channel.push(DATA % channel.id)
    queue.put_log_line('{"@message":"x"}')
    assert json.loads(await queue.receive()) == [
        {"id": 9, "ok": True},
        {"log": [{"@message": "x"}]},
        {"id": 1, "packets": [json.loads(DATA % 1)] * 2},
        {"id": 2, "packets": [json.loads(DATA % 2)]},
    ]


async def test_a_full_queue_drops_the_oldest_packets_but_never_the_schema(monkeypatch):
    monkeypatch.setattr(module, "PACKETS_LIMIT", 200)
    queue = PageQueue()
    channel = FollowedChannel(queue, 1, "a")
    channel.push(SCHEMA)
    for number in range(100):
        channel.push(DATA % number)
    (message,) = json.loads(await queue.receive())
    first, *rest = message["packets"]
    assert "schema" in first and first["data"]["values"][0][0] > 80
    assert all("schema" not in packet for packet in rest)
    assert queue.dropped == channel.dropped == 101 - len(message["packets"])


async def test_too_many_unread_answers_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "MESSAGES_LIMIT", 100)
    queue = PageQueue()
    for number in range(20):
        queue.put({"id": number, "ok": True})
    with pytest.raises(QueueOverflow):
        await queue.receive()


async def test_only_the_newest_log_lines_are_queued():
    queue = PageQueue()
    for number in range(2 * module.LINES_LIMIT):
        queue.put_log_line(str(number))
    (message,) = json.loads(await queue.receive())
    assert message["log"] == [*range(module.LINES_LIMIT, 2 * module.LINES_LIMIT)]


async def test_packets_of_a_channel_that_was_left_are_discarded():
    queue = PageQueue()
    one, two = FollowedChannel(queue, 1, "a"), FollowedChannel(queue, 2, "b")
    one.push(DATA % 1)
    two.push(DATA % 2)
    queue.discard(one)
    (message,) = json.loads(await queue.receive())
    assert message["id"] == 2
