"""What waits for a page is bounded, and what is dropped is counted."""

import json

import pytest

from aiostream_ds.console import page_queue as module
from aiostream_ds.console.page_queue import Feed, Outbox, Overflow

SCHEMA = b'{"schema":{"fields":[]},"data":{"values":[[1]]}}'
DATA = b'{"data":{"values":[[%d]]}}'


async def test_what_waits_together_leaves_together_in_its_order():
    outbox = Outbox()
    one, two = Feed(outbox, 1, "a"), Feed(outbox, 2, "b")
    outbox.tell({"id": 9, "ok": True})
    for feed in (one, two, one):
        feed.push(DATA % feed.id)
    outbox.log('{"@message":"x"}')
    assert json.loads(await outbox.take()) == [
        {"id": 9, "ok": True},
        {"log": [{"@message": "x"}]},
        {"id": 1, "packets": [json.loads(DATA % 1)] * 2},
        {"id": 2, "packets": [json.loads(DATA % 2)]},
    ]


async def test_a_page_that_reads_nothing_loses_the_oldest_packets_but_never_the_schema(monkeypatch):
    monkeypatch.setattr(module, "PACKETS_LIMIT", 200)
    outbox = Outbox()
    feed = Feed(outbox, 1, "a")
    feed.push(SCHEMA)
    for number in range(100):
        feed.push(DATA % number)
    (message,) = json.loads(await outbox.take())
    first, *rest = message["packets"]
    assert "schema" in first and first["data"]["values"][0][0] > 80
    assert all("schema" not in packet for packet in rest)
    assert outbox.dropped == feed.dropped == 101 - len(message["packets"])


async def test_a_page_that_leaves_answers_unread_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "ANSWERS_LIMIT", 100)
    outbox = Outbox()
    for number in range(20):
        outbox.tell({"id": number, "ok": True})
    with pytest.raises(Overflow):
        await outbox.take()


async def test_of_too_many_log_lines_the_newest_stay():
    outbox = Outbox()
    for number in range(2 * module.LINES_LIMIT):
        outbox.log(str(number))
    (message,) = json.loads(await outbox.take())
    assert message["log"] == [*range(module.LINES_LIMIT, 2 * module.LINES_LIMIT)]


async def test_nothing_waits_of_a_channel_that_was_left():
    outbox = Outbox()
    one, two = Feed(outbox, 1, "a"), Feed(outbox, 2, "b")
    one.push(DATA % 1)
    two.push(DATA % 2)
    outbox.forget(one)
    (message,) = json.loads(await outbox.take())
    assert message["id"] == 2
