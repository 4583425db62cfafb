"""Upstream: many streams share one connection; subscriptions, delivery and outages."""

from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
import pytest

from aiostream_ds import Buffer, DataSource, NotFound, Retry, Upstream, UpstreamError, stream
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


class Broker:
    """An upstream system that records its calls."""

    def __init__(self):
        self.connects = self.open = self.most_open = 0
        self.subscribed, self.calls = set(), []
        self.refuses = 0
        self.times = []
        self.send, self._receive = anyio.create_memory_object_stream(1_000_000)

    @asynccontextmanager
    async def connect(self):
        self.connects += 1
        self.times.append(anyio.current_time())
        if self.refuses:
            self.refuses -= 1
            raise ConnectionRefusedError("connection refused")
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            await anyio.sleep(0.1)
            yield self._receive
        finally:
            self.open -= 1
            self.subscribed.clear()
            await anyio.sleep(0)

    def publish(self, topic, *texts):
        for text in texts:
            self.send.send_nowait((topic, text))

    def lose(self):
        self.send.send_nowait((None, None))


class Topics(Upstream[str, str]):
    def __init__(self, broker, **options):
        super().__init__(**options)
        self.broker = broker

    def connect(self):
        return self.broker.connect()

    async def subscribe(self, connection, key):
        if key == "nowhere":
            raise NotFound("no topic 'nowhere'")
        await anyio.sleep(0.01)
        self.broker.subscribed.add(key)
        self.broker.calls.append(("subscribe", key))

    async def unsubscribe(self, connection, key):
        self.broker.subscribed.discard(key)
        self.broker.calls.append(("unsubscribe", key))

    async def messages(self, connection):
        async for topic, text in connection:
            if topic is None:
                raise ConnectionResetError("connection reset")
            if topic in self.broker.subscribed:
                yield topic, text


@pytest.fixture
def broker():
    found = Broker()
    yield found
    found.send.close()
    found._receive.close()


def source(broker, slow=(), **options):
    class Shared(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            async with Topics(broker, **options) as self.topics:
                Shared.now = self.topics
                yield

        @stream("t/{topic}", retry=Retry(min_delay=1, max_delay=8))
        async def topic(self, topic: str):
            async with self.topics.follow(topic) as messages:
                async for text in messages:
                    if topic in slow:
                        await anyio.sleep(10)
                    yield {"text": text}

    return Shared


def texts(viewer):
    return [row["text"] for row in viewer.rows]


@pytest.mark.slow
async def test_fifty_channels_share_one_connection_and_each_gets_its_own(broker):
    kind = source(broker)
    async with serve_in_memory(kind) as grafana:
        viewers = [await grafana.follow(f"t/{n}") for n in range(50)]
        await anyio.sleep(2)
        assert broker.connects == broker.open == 1 and len(broker.subscribed) == 50
        for n in range(50):
            broker.publish(f"{n}", f"to {n}", f"again {n}")
        broker.publish("unknown", "to nobody")
        await anyio.sleep(1)
        for n, viewer in enumerate(viewers):
            assert texts(viewer) == [f"to {n}", f"again {n}"]
        counts = kind.now.statistics()
        assert (counts.subscribers, counts.keys, counts.connects) == (50, 50, 1)
        assert (counts.messages, counts.dropped) == (100, 0)
    assert broker.open == 0


async def test_a_key_is_subscribed_once_and_unsubscribed_after_its_last_follower(broker):
    async with Topics(broker) as topics:
        async with topics.follow("a") as first:
            async with topics.follow("a") as second, topics.follow("b"):
                assert broker.calls == [("subscribe", "a"), ("subscribe", "b")]
                broker.publish("a", "hello")
                assert [await anext(first), await anext(second)] == ["hello", "hello"]
            await anyio.sleep(1)
            assert broker.calls[2:] == [("unsubscribe", "b")] and broker.open == 1
        await anyio.sleep(1)
        assert broker.calls[3:] == [("unsubscribe", "a")] and broker.open == 0
        async with topics.follow("a"):
            assert broker.connects == 2 and broker.most_open == 1


async def test_a_connection_lingers_after_its_last_follower(broker):
    async with Topics(broker, linger=30) as topics:
        async with topics.follow("a"):
            pass
        await anyio.sleep(29)
        async with topics.follow("a") as messages:
            broker.publish("a", "still here")
            assert await anext(messages) == "still here"
        assert broker.calls == [("subscribe", "a")] and broker.connects == 1
        await anyio.sleep(31)
        assert broker.open == 0 and broker.calls[-1] == ("unsubscribe", "a")


async def test_an_unknown_topic_fails_only_its_own_stream(broker):
    async with serve_in_memory(source(broker)) as grafana:
        good = await grafana.follow("t/good")
        bad = await grafana.follow("x/t/nowhere")
        await anyio.sleep(5)
        broker.publish("good", "news")
        await anyio.sleep(5)
        assert texts(good) == ["news"] and broker.connects == 1
        assert b"no topic 'nowhere'" in bad.packets[-1]


@pytest.mark.slow
async def test_after_a_lost_connection_all_streams_share_one_retry(broker):
    async with serve_in_memory(source(broker, retry=Retry(min_delay=1, max_delay=30))) as grafana:
        viewers = [await grafana.follow(f"t/{n}") for n in range(50)]
        await anyio.sleep(2)
        broker.refuses = 3
        broker.lose()
        await anyio.sleep(120)
        assert broker.open == 1 and broker.most_open == 1 and len(broker.subscribed) == 50
        assert broker.connects == 5, "not one attempt for each of fifty streams"
        for n, viewer in enumerate(viewers):
            broker.publish(f"{n}", "back")
            assert (await viewer.next())["text"] == "back"
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_stream_starts_total"] == 50


async def test_the_upstreams_back_off_applies_even_if_streams_retry_sooner(broker):
    broker.refuses = 4
    retry = Retry(min_delay=20, factor=1, jitter=0)
    async with serve_in_memory(source(broker, retry=retry)) as grafana:
        for n in range(10):
            await grafana.follow(f"t/{n}")
        await anyio.sleep(300)
    assert broker.connects == 5
    assert all(later - earlier >= 20 for earlier, later in pairwise(broker.times))


class Flood(Topics):
    """Ten thousand messages without a wait, one of them for another key."""

    async def messages(self, connection):
        while len(self.broker.subscribed) < 2:
            await anyio.sleep(0.01)
        for n in range(10_000):
            yield ("one" if n == 100 else "flood"), n
        await anyio.sleep_forever()


async def test_an_upstream_that_never_waits_lets_its_followers_run(broker):
    async with Flood(broker, buffer=Buffer(rows=100_000)) as topics:
        async with topics.follow("one") as one, topics.follow("flood"):
            assert await anext(one) == 100
            assert topics.statistics().messages < 400


@pytest.mark.slow
async def test_a_slow_follower_loses_only_its_own_messages_and_they_are_counted(broker):
    kind = source(broker, slow=("slow",), buffer=Buffer(rows=10))
    async with serve_in_memory(kind) as grafana:
        slow, fast = await grafana.follow("t/slow"), await grafana.follow("t/fast")
        await anyio.sleep(1)
        for n in range(200):
            broker.publish("slow", f"{n}")
            broker.publish("fast", f"{n}")
            await anyio.sleep(0.01)
        await anyio.sleep(200)
        assert texts(fast) == [f"{n}" for n in range(200)]
        lost = kind.now.statistics().dropped
        assert len(texts(slow)) + lost == 200 and texts(slow)[-1] == "199"
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_dropped_total{reason="upstream"}'] == lost > 100


async def test_block_stops_reading_the_connection_and_loses_nothing(broker):
    async with Topics(broker, buffer=Buffer(rows=5, full="block")) as topics:
        async with topics.follow("a") as slow, topics.follow("b") as fast:
            for n in range(50):
                broker.publish("a", n)
                broker.publish("b", n)
            got = []
            for _ in range(50):
                await anyio.sleep(1)
                got.append(await anext(slow))
                if len(got) % 5 == 0:
                    got_fast = [await anext(fast) for _ in range(5)]
            assert got == list(range(50)) and got_fast[-1] == 49
        assert topics.statistics().dropped == 0


async def test_latest_keeps_one_message_and_fail_ends_a_slow_follower(broker):
    async with Topics(broker, buffer=Buffer(full="latest")) as topics:
        async with topics.follow("a") as messages:
            broker.publish("a", 1, 2, 3)
            await anyio.sleep(1)
            assert await anext(messages) == 3 and topics.statistics().dropped == 2
    async with Topics(broker, buffer=Buffer(rows=2, full="fail")) as topics:
        async with topics.follow("a") as messages:
            broker.publish("a", 1, 2, 3)
            await anyio.sleep(1)
            with pytest.raises(Exception, match="at most 2 queued messages, got 3"):
                await anext(messages)
            assert topics.statistics().dropped == 3


class SizedTopics(Topics):
    def message_bytes(self, message):
        return len(message)


async def test_a_queue_is_bounded_in_bytes_where_messages_have_a_size(broker):
    async with SizedTopics(broker, buffer=Buffer(rows=100, bytes=10)) as topics:
        async with topics.follow("a") as messages:
            broker.publish("a", "1234", "5678", "90ab", "x" * 50)
            await anyio.sleep(1)
            assert messages.dropped == topics.statistics().dropped == 3
            assert await anext(messages) == "x" * 50, "the newest one is never dropped"
            broker.publish("a", "1234", "5678", "90")
            await anyio.sleep(1)
            assert [await anext(messages) for _ in range(3)] == ["1234", "5678", "90"]
    async with SizedTopics(broker, buffer=Buffer(bytes=10, full="fail")) as topics:
        async with topics.follow("a") as messages:
            broker.publish("a", "x" * 50)
            assert len(await anext(messages)) == 50
            broker.publish("a", "1234", "5678", "90ab")
            await anyio.sleep(1)
            with pytest.raises(UpstreamError, match="at most 10 bytes of queued messages, got 12"):
                await anext(messages)


async def test_block_is_bounded_in_bytes_where_messages_have_a_size(broker):
    async with SizedTopics(broker, buffer=Buffer(bytes=10, full="block")) as topics:
        async with topics.follow("a") as messages:
            for n in range(50):
                broker.publish("a", f"{n:020}")
            await anyio.sleep(1)
            assert topics.statistics().messages == 2, "one is queued, and one waits"
            assert [int(await anext(messages)) for _ in range(50)] == list(range(50))
            assert not messages.dropped


async def test_last_messages_are_bounded_in_bytes_where_messages_have_a_size(broker):
    async with SizedTopics(broker, buffer=Buffer(bytes=10), last_values=5) as topics:
        async with topics.follow("a"):
            key = topics._keys["a"]
            for address, text in (("b", "1234"), ("c", "5678"), ("b", "90"), ("d", "abcd")):
                key.remember(address, text)
            assert list(key._last.items()) == [("c", "5678"), ("b", "90"), ("d", "abcd")]
            key.remember("e", "efgh")
            assert list(key._last) == ["b", "d", "e"]
            key.remember("f", "x" * 50)
            assert list(key._last) == ["f"]
            async with topics.follow("a") as late:
                assert await anext(late) == "x" * 50


async def test_last_messages_that_are_more_than_the_bounds_are_not_drops(broker):
    async with Topics(broker, buffer=Buffer(full="latest"), last_values=3) as topics:
        async with topics.follow("a"):
            broker.publish("a", 1)
            await anyio.sleep(1)
            key = topics._keys["a"]
            for address in range(3):
                key.remember(address, address)
            async with topics.follow("a") as late:
                assert await anext(late) == 2
        assert topics.statistics().dropped == 0


async def test_with_block_a_follower_that_takes_nothing_delays_the_others_for_the_stall_timeout(
    broker,
):
    buffer = Buffer(rows=2, full="block", stall_timeout=5)
    async with Topics(broker, buffer=buffer) as topics:
        async with topics.follow("a") as stalled, topics.follow("b") as fast:
            broker.publish("a", 1, 2, 3, 4)
            broker.publish("b", 5)
            begun = anyio.current_time()
            assert await anext(fast) == 5
            assert anyio.current_time() - begun == 5
            assert [await anext(stalled), await anext(stalled)] == [1, 2]
            with pytest.raises(UpstreamError, match="a: the subscriber has taken nothing for 5 s"):
                await anext(stalled)


@pytest.mark.slow
async def test_many_messages_for_one_key_do_not_delay_the_others(broker):
    done = []
    async with Topics(broker, buffer=Buffer(rows=100_000)) as topics:

        async def read(key, count):
            async with topics.follow(key) as messages:
                for _ in range(count):
                    await anext(messages)
                done.append((key, topics.statistics().messages))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, "flood", 10_000)
            tasks.start_soon(read, "one", 1)
            await anyio.sleep(1)
            broker.publish("flood", *range(100))
            broker.publish("one", "me")
            broker.publish("flood", *range(9_900))
        assert done[0][0] == "one" and done[0][1] < 400


async def test_a_follower_that_is_cancelled_while_connecting_leaves_no_connection(broker):
    async with Topics(broker) as topics:
        with anyio.move_on_after(0.05):
            async with topics.follow("a"):
                raise AssertionError("it takes 0.1 s to connect")
        await anyio.sleep(1)
        assert broker.open == 0 and topics.statistics().subscribers == 0


async def test_a_follower_that_arrives_while_the_connection_closes_waits_for_the_next(broker):
    async with Topics(broker) as topics:
        async with topics.follow("a"):
            pass
        async with topics.follow("a") as messages:  # the old connection is closing
            broker.publish("a", "hello")
            assert await anext(messages) == "hello"
        assert broker.most_open == 1


async def test_following_before_entering_is_an_error(broker):
    with pytest.raises(RuntimeError, match="entered in `lifespan`"):
        async with Topics(broker).follow("a"):
            pass
