"""What a consumer makes of the answers to a pull, without a server."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from aiostream_ds import UpstreamError
from aiostream_ds._nats.nats_protocol import NatsMessage
from aiostream_ds.sources.nats import ordered_consumer
from aiostream_ds.sources.nats.ordered_consumer import ConsumerGone, OrderedConsumer


class Server:
    """Answers each pull with what a test has prepared. `{}` in a subject is that of the pull."""

    def __init__(self, *answers: Sequence[NatsMessage]) -> None:
        self.server = "nats.example:4222"
        self.requests: list[dict[str, Any]] = []
        self._answers = list(answers)
        self.consumer = OrderedConsumer(self, "ORDERS", "c", "inbox", 0)  # type: ignore[arg-type]

    async def publish(self, subject: str, payload: bytes, headers: Any, reply: str) -> None:
        assert subject == "$JS.API.CONSUMER.MSG.NEXT.ORDERS.c"
        self.requests.append(json.loads(payload))
        for each in self._answers.pop(0):
            self.consumer.answers.put(each._replace(subject=each.subject.format(reply)))

    async def pull(self, limit: int = 1_000) -> list[int]:
        """The sequences that one pull reads."""
        return [each.sequence async for part in self.consumer.pull(limit) for each in part]


def stored(sequence: int, count: int, pending: int = 0, where: str = "") -> NatsMessage:
    reply = f"$JS.ACK.{where}ORDERS.c.1.{sequence}.{count}.1700000000123456789.{pending}"
    return NatsMessage(1, "orders.eu", 0, "", {}, b"{}", reply)


def status(code: int, text: str = "", subject: str = "{}") -> NatsMessage:
    return NatsMessage(1, subject, code, text, {}, b"")


@pytest.mark.parametrize(("where", "end"), [("", ""), ("hub.ACCOUNT.", ""), ("_.A.", ".random")])
async def test_a_message_is_described_by_its_reply_subject(where, end):
    message = stored(7, 1, 3, where)
    server = Server([message._replace(reply=message.reply + end)])
    (found,) = [each async for part in server.consumer.pull(1) for each in part]
    assert (found.sequence, found.time, found.subject) == (7, 1_700_000_000_123, "orders.eu")
    assert server.consumer.pending == 3 and not server.consumer.is_at_end


async def test_a_pull_ends_with_its_last_message_or_its_own_status():
    server = Server(
        [stored(1, 1, 1), stored(2, 2)],
        [status(408, subject="inbox.1"), stored(3, 3), status(408), stored(4, 4)],
        [],
    )
    assert await server.pull(2) == [1, 2] and server.consumer.is_at_end
    assert await server.pull() == [3, 4] and server.consumer.is_at_end


async def test_a_pull_that_ends_without_the_pending_messages_is_not_the_end():
    server = Server([stored(1, 1, 2), status(408)], [status(408)], [status(409, "Batch Completed")])
    assert await server.pull() == [1]
    assert not server.consumer.is_at_end and not server.consumer.is_stalled
    assert await server.pull() == []
    assert not server.consumer.is_at_end and server.consumer.is_stalled
    assert await server.pull() == [] and not server.consumer.is_stalled


async def test_a_message_that_does_not_fit_is_read_alone():
    server = Server([status(409, "Message Size Exceeds MaxBytes")], [stored(1, 1)], [status(404)])
    assert await server.pull() == [] and not server.consumer.is_at_end
    assert await server.pull() == [1]
    assert await server.pull() == []
    assert [(each["batch"], "max_bytes" in each) for each in server.requests] == [
        (1_000, True),
        (1, False),
        (1_000, True),
    ]


async def test_a_message_with_the_status_of_an_answer_is_a_message():
    server = Server([stored(1, 1)._replace(status=404, description="Not Found")])
    assert await server.pull(1) == [1]


@pytest.mark.parametrize(
    "answers",
    [
        [status(409, "Consumer Deleted")],
        [status(503)],
        [stored(1, 1), stored(3, 3)],
    ],
)
async def test_a_consumer_that_is_gone_or_has_lost_messages_is_made_again(answers):
    with pytest.raises(ConsumerGone):
        await Server(answers).pull()


@pytest.mark.parametrize("reply", ["$JS.ACK.ORDERS", "$JS.ACK.ORDERS.c.1.x.1.1.0"])
async def test_another_reply_subject_is_an_error(reply):
    with pytest.raises(UpstreamError, match="reply subject"):
        await Server([stored(1, 1)._replace(reply=reply)]).pull()


async def test_a_server_that_does_not_end_a_pull_is_an_error(monkeypatch):
    monkeypatch.setattr(ordered_consumer, "PULL_SECONDS", 0.0)
    monkeypatch.setattr(ordered_consumer, "ANSWER_TIMEOUT", 0.01)
    with pytest.raises(UpstreamError, match="a read of the stream 'ORDERS' has no end"):
        await Server([stored(1, 1)]).pull()
