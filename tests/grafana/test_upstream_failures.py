"""Upstream: what fails one key, what fails the connection, and what each follower gets."""

import asyncio
import logging
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from aiostream_ds import (
    Buffer,
    ConfigError,
    DataSource,
    NotFound,
    PermissionDenied,
    Retry,
    Upstream,
    UpstreamError,
    stream,
)
from aiostream_ds.testing import UpstreamDouble, serve_in_memory

pytestmark = pytest.mark.virtual


class ClientError(Exception):
    """The error of a client library."""


class Panic(BaseException):
    """As of a Rust extension."""


class Topics(UpstreamDouble[str, object]):
    pass


def source(topics):
    class Shared(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            async with topics:
                self.topics = topics
                yield

        @stream("t/{topic}", retry=Retry(min_delay=1, max_delay=8))
        async def topic(self, topic: str):
            async with topics.follow(topic) as messages:
                async for text in messages:
                    yield {"text": text}

    return Shared


async def collect(topics, key, found, count=1_000_000):
    """Follow a key; append its messages, and the error at the end."""
    try:
        async with topics.follow(key) as messages:
            async for message in messages:
                found.append(message)
                if len(found) >= count:
                    return
    except Exception as error:
        found.append(error)


def texts(viewer):
    return [row["text"] for row in viewer.rows]


async def stray():
    """Await a future that was cancelled."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def exits():
    raise SystemExit(3)


async def panics():
    raise Panic("slice index")


async def raises_group():
    raise BaseExceptionGroup("several", [Panic("one"), ValueError("two")])


# -- one key ---------------------------------------------------------------------------------------


async def test_a_subscribe_that_never_returns_delays_no_other_key_and_times_out():
    class Hanging(Topics):
        async def subscribe(self, connection, key):
            if key == "hangs":
                await anyio.sleep_forever()
            await super().subscribe(connection, key)

    topics = Hanging()
    async with serve_in_memory(source(topics)) as grafana:
        bad = await grafana.follow("x/t/hangs")
        await anyio.sleep(1)
        good = await grafana.follow("t/good")
        await anyio.sleep(1)
        topics.send("good", "news")
        await anyio.sleep(1)
        assert texts(good) == ["news"]
        await anyio.sleep(9)
        assert b"reconnecting (1)" in bad.packets[-1]
        topics.send("good", "more")
        await anyio.sleep(1)
        assert texts(good) == ["news", "more"] and topics.statistics().connects == 1


async def test_the_error_of_a_timeout_names_the_upstream_the_call_and_the_seconds():
    class Hanging(Topics):
        async def subscribe(self, connection, key):
            await anyio.sleep_forever()

    async with Hanging(timeout=3, name="broker eu") as topics:
        with pytest.raises(UpstreamError, match=r"broker eu: subscribe\('a'\) .* 3 s"):
            async with topics.follow("a"):
                pass


async def test_an_unsubscribe_that_never_returns_delays_no_other_key():
    class Hanging(Topics):
        async def unsubscribe(self, connection, key):
            await anyio.sleep_forever()

    async with Hanging() as topics, topics.follow("other") as other:
        async with topics.follow("a"):
            pass
        async with topics.follow("b"):
            topics.send("other", 1)
            assert await anext(other) == 1
        async with topics.follow("a"):  # waits for the timeout, then subscribes again
            assert topics.statistics().connects == 1


@pytest.mark.parametrize("hangs", ["opening", "closing"])
async def test_a_connect_that_hangs_is_a_lost_connection_after_the_timeout(hangs):
    class Hanging(Topics):
        attempts = 0

        @asynccontextmanager
        async def connect(self):
            self.attempts += 1
            if self.attempts == 1 and hangs == "opening":
                await anyio.sleep_forever()
            async with super().connect() as connection:
                yield connection
            if self.attempts == 1:
                await anyio.sleep_forever()

    async with Hanging(retry=Retry(min_delay=1)) as topics:
        if hangs == "opening":
            with pytest.raises(UpstreamError, match="opening the connection took longer than 10 s"):
                async with topics.follow("a"):
                    pass
        else:
            async with topics.follow("a"):
                pass
            await anyio.sleep(1)
        with anyio.fail_after(20):
            async with topics.follow("a"):
                assert topics.attempts == 2


async def uncancellable(seconds):
    """As `to_thread.run_sync` with a call that blocks."""
    with anyio.CancelScope(shield=True):
        await anyio.sleep(seconds)


@pytest.mark.parametrize("where", ["opening", "subscribe", "closing"])
async def test_followers_of_a_call_that_cannot_be_cancelled_get_an_error(where):
    class Blocking(Topics):
        attempts = 0

        @asynccontextmanager
        async def connect(self):
            self.attempts += 1
            if where == "opening" and self.attempts == 1:
                await uncancellable(100)
            async with super().connect() as connection:
                yield connection
            if where == "closing" and self.attempts == 1:
                await uncancellable(100)

        async def subscribe(self, connection, key):
            if where == "subscribe" and key == "bad" and self.attempts == 1:
                await uncancellable(100)
                self.attempts += 1

    async with Blocking(retry=Retry(min_delay=1)) as topics, anyio.create_task_group() as tasks:
        good, bad = [], []
        if where == "subscribe":
            tasks.start_soon(collect, topics, "good", good)
        if where == "closing":
            with anyio.move_on_after(1):
                await collect(topics, "bad", [])
            await anyio.sleep(1)
        tasks.start_soon(collect, topics, "bad", bad)
        await anyio.sleep(31)
        (error,) = bad
        assert isinstance(error, UpstreamError) and "10 s and cannot be cancelled" in str(error)
        await anyio.sleep(100)
        bad.clear()
        tasks.start_soon(collect, topics, "bad", bad)
        await anyio.sleep(1)
        topics.send("bad", 1)
        topics.send("good", 1)
        await anyio.sleep(1)
        assert bad == [1] and good == [1] * (where == "subscribe")
        tasks.cancel_scope.cancel()


async def test_a_connection_that_closes_slowly_after_its_loss_is_not_reported_as_open():
    class Slow(Topics):
        @asynccontextmanager
        async def connect(self):
            try:
                async with super().connect() as connection:
                    yield connection
            finally:
                await anyio.sleep(5)

    async with Slow() as topics, topics.follow("a") as messages:
        topics.disconnect()
        await anyio.sleep(1)
        with pytest.raises(UpstreamError, match="connection reset"):
            await topics.check()
        with pytest.raises(UpstreamError, match="connection reset"):
            await anext(messages)


async def test_a_disconnect_while_the_connection_closes_is_not_an_outage(caplog):
    class Slow(Topics):
        @asynccontextmanager
        async def connect(self):
            async with super().connect() as connection:
                yield connection
            await anyio.sleep(5)

    async with Slow() as topics:
        async with topics.follow("a"):
            pass
        await anyio.sleep(1)
        topics.disconnect()
        await anyio.sleep(5)
        await topics.check()
    assert not caplog.records


async def test_a_loss_whose_cleanup_hangs_is_reported_as_the_loss(caplog):
    class Hanging(Topics):
        @asynccontextmanager
        async def connect(self):
            try:
                async with super().connect() as connection:
                    yield connection
            finally:
                await anyio.sleep_forever()

    async with Hanging() as topics, topics.follow("a") as messages:
        topics.disconnect(ClientError("kicked"))
        with pytest.raises(UpstreamError, match="Hanging failed: kicked"):
            await anext(messages)


async def test_an_upstream_is_entered_once_at_a_time():
    async with Topics() as topics:
        with pytest.raises(RuntimeError, match="once at a time; make one in each `lifespan`"):
            async with topics:
                pass
    async with topics, topics.follow("a"):
        pass


@pytest.mark.parametrize("how", ["subscribe", "fail"])
@pytest.mark.parametrize(
    "error, shown, permanent",
    [
        (ClientError("invalid filter"), "Topics failed: invalid filter", False),
        (UpstreamError("later"), "later", False),
        (NotFound("no topic"), "no topic", True),
        (PermissionDenied("not yours"), "not yours", True),
    ],
)
async def test_an_error_of_one_key_is_only_its_followers(how, error, shown, permanent):
    topics = Topics()
    if how == "subscribe":
        topics.refused["bad"] = error
    async with serve_in_memory(source(topics)) as grafana:
        good, bad = await grafana.follow("t/good"), await grafana.follow("x/t/bad")
        await anyio.sleep(1)
        if how == "fail":
            topics.fail("bad", error)
        await anyio.sleep(0.5)
        topics.send("good", "news")
        await anyio.sleep(0.4)
        assert texts(good) == ["news"] and topics.statistics().connects == 1
        assert (shown if permanent else "reconnecting").encode() in bad.packets[-1]
        topics.refused.clear()
        await anyio.sleep(30)
        assert ("bad" in topics.subscribed) != permanent


async def test_a_failed_key_gives_the_queued_messages_first_and_is_subscribed_again():
    async with Topics() as topics, topics.follow("b"):
        async with topics.follow("a") as messages:
            topics.send("a", 1, 2)
            await anyio.sleep(1)
            topics.fail("a", NotFound("deleted"))
            assert [await anext(messages), await anext(messages)] == [1, 2]
            with pytest.raises(NotFound, match="deleted"):
                await anext(messages)
            async with topics.follow("a") as again:
                assert "a" in topics.subscribed
                topics.send("a", 3)
                assert await anext(again) == 3
        topics.fail("nobody", NotFound("ignored"))
        assert topics.statistics().connects == 1


async def test_a_key_that_fails_while_it_is_subscribed_is_not_unsubscribed():
    calls = []

    class Slow(Topics):
        async def subscribe(self, connection, key):
            calls.append("subscribe")
            await anyio.sleep(1)

        async def unsubscribe(self, connection, key):
            calls.append("unsubscribe")

    async with Slow() as topics, anyio.create_task_group() as tasks:
        first, second = [], []
        tasks.start_soon(collect, topics, "a", first)
        await anyio.sleep(0.5)
        topics.fail("a", NotFound("refused"))
        tasks.start_soon(collect, topics, "a", second)
        await anyio.sleep(2)
        assert [type(each) for each in first] == [NotFound] and second == []
        assert calls == ["subscribe", "subscribe"]
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("call", [stray, exits, panics, raises_group])
@pytest.mark.parametrize("method", ["subscribe", "unsubscribe"])
async def test_nothing_that_a_key_raises_leaves_it(method, call):
    class Failing(Topics):
        pass

    async def failing(self, connection, key):
        if key == "bad":
            await call()

    setattr(Failing, method, failing)
    async with Failing() as topics, topics.follow("good") as good:
        found = []
        with anyio.move_on_after(1):
            await collect(topics, "bad", found)
        if method == "subscribe":
            (error,) = found
            assert isinstance(error, UpstreamError) and "the author's code" in str(error)
        await anyio.sleep(1)
        topics.send("good", 1)
        assert await anext(good) == 1 and topics.statistics().connects == 1


@pytest.mark.parametrize("concurrency, most", [(1, 1), (3, 3)])
async def test_at_most_so_many_calls_of_subscribe_run_at_a_time(concurrency, most):
    running = [0, 0]

    class Counted(Topics):
        async def subscribe(self, connection, key):
            running[0] += 1
            running[1] = max(running)
            await anyio.sleep(1)
            running[0] -= 1

    async with Counted(concurrency=concurrency) as topics, anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(collect, topics, f"{n}", [])
        await anyio.sleep(30)
        assert running == [0, most] and topics.statistics().keys == 20
        tasks.cancel_scope.cancel()


# -- the connection --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [None, stray, exits, panics, raises_group])
async def test_messages_that_end_unasked_are_a_lost_connection_with_back_off(call):
    class Ending(Topics):
        async def messages(self, connection):
            if call is not None:
                await call()
            return
            yield

    async with Ending(retry=Retry(min_delay=1, jitter=0)) as topics:
        with anyio.move_on_after(60):
            while True:
                found = []
                await collect(topics, "a", found)
                assert isinstance(found[-1], UpstreamError)
        assert 4 <= topics.statistics().connects <= 7


@pytest.mark.parametrize("where", ["enter", "exit"])
@pytest.mark.parametrize("call", [stray, exits, panics, raises_group])
async def test_nothing_that_connect_raises_ends_the_upstream(where, call):
    class Failing(Topics):
        @asynccontextmanager
        async def connect(self):
            if where == "enter":
                await call()
            yield
            await call()

        async def messages(self, connection):
            raise ClientError("lost")
            yield

    async with Failing(retry=Retry(min_delay=1, jitter=0)) as topics:
        for _ in range(3):
            found = []
            await collect(topics, "a", found)
            assert isinstance(found[-1], UpstreamError)
        assert topics.statistics().connects == 3


async def test_the_exception_of_messages_is_raised_at_the_yield_in_connect():
    class Mapping(Topics):
        @asynccontextmanager
        async def connect(self):
            try:
                yield
            except ClientError as error:
                raise UpstreamError(f"the broker answered: {error}") from error

        async def messages(self, connection):
            raise ClientError("session taken over")
            yield

    async with Mapping() as topics:
        found = []
        await collect(topics, "a", found)
        assert str(found[0]) == "the broker answered: session taken over"


async def test_a_connect_that_suppresses_the_error_has_lost_its_connection():
    class Suppressing(Topics):
        @asynccontextmanager
        async def connect(self):
            async with super().connect() as connection:
                with suppress(ConnectionError):
                    yield connection

    async with Suppressing(retry=Retry(min_delay=1, jitter=0)) as topics:
        for _ in range(2):
            async with topics.follow("a") as messages:
                topics.disconnect()
                with pytest.raises(UpstreamError, match="connection reset"):
                    await anext(messages)


async def test_a_task_group_of_connect_that_ends_its_body_has_lost_the_connection():
    class Grouped(Topics):
        @asynccontextmanager
        async def connect(self):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.read, tasks)
                yield

        async def read(self, tasks):
            await anyio.sleep(1)
            if self.clean:
                tasks.cancel_scope.cancel()
            else:
                raise ClientError("read failed")

    for clean, text in (True, "ended while it was open"), (False, "read failed"):
        async with Grouped(retry=Retry(min_delay=1, jitter=0)) as topics:
            topics.clean = clean
            for _ in range(2):
                found = []
                await collect(topics, "a", found)
                assert text in str(found[0])
            assert topics.statistics().connects == 2


async def test_the_task_group_of_asyncio_in_connect_fails_as_any_other():
    class Grouped(Topics):
        @asynccontextmanager
        async def connect(self):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.read())
                yield

        async def read(self):
            await anyio.sleep(1)
            raise ClientError("read failed")

    async with Grouped(retry=Retry(min_delay=1, jitter=0)) as topics:
        for _ in range(2):
            found = []
            await collect(topics, "a", found)
            assert str(found[0]) == "Grouped failed: read failed"


@pytest.mark.slow
@pytest.mark.parametrize("error", [ConfigError("wrong password"), PermissionDenied("locked")])
async def test_a_permanent_error_of_connect_is_not_retried_until_the_settings_change(error, caplog):
    topics = Topics()
    topics.refusal = error
    async with serve_in_memory(source(topics)) as grafana:
        viewers = [await grafana.follow(f"x/t/{n}") for n in range(8)]
        await anyio.sleep(600)
        viewers.append(await grafana.follow("x/t/late"))
        await anyio.sleep(600)
        assert topics.statistics().connects == 1
        assert all(str(error).encode() in viewer.packets[-1] for viewer in viewers)
        assert await grafana.health() == (False, str(error))
        assert topics.statistics().connects == 1
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.INFO]
    assert len([line for line in lines if str(error) in line and "Topics" in line]) == 1


@pytest.mark.slow
async def test_an_outage_of_many_streams_is_one_line_with_one_traceback(caplog):
    caplog.set_level(logging.INFO)
    topics = Topics(retry=Retry(min_delay=1, max_delay=10))
    async with serve_in_memory(source(topics)) as grafana:
        viewers = [await grafana.follow(f"t/{n}") for n in range(8)]
        await anyio.sleep(60)
        caplog.clear()
        topics.refusal = ClientError("no route to host")
        topics.disconnect(ClientError("keepalive timeout"))
        await anyio.sleep(300)
        (line,) = caplog.records
        assert line.getMessage().startswith("Topics: no connection: Topics failed: keepalive")
        assert line.levelno == logging.WARNING and line.exc_info is not None
        assert (await grafana.metrics())["aiostream_ds_stream_retries_total"] >= 8
        topics.refusal = None
        await anyio.sleep(60)
        assert [each.getMessage()[:24] for each in caplog.records[1:]] == [
            "Topics: connected again,"
        ]
        for n, viewer in enumerate(viewers):
            topics.send(f"{n}", "back")
            assert (await viewer.next())["text"] == "back"


async def test_a_connection_that_flaps_keeps_its_back_off_and_one_line(caplog):
    class Flapping(Topics):
        async def messages(self, connection):
            yield "a", 1
            await anyio.sleep(0.2)
            raise ConnectionResetError("kicked")

    async with Flapping(retry=Retry(min_delay=1, max_delay=30, jitter=0)) as topics:
        with anyio.move_on_after(600):
            while True:
                await collect(topics, "a", [])
        assert topics.statistics().connects < 30
    assert len([each for each in caplog.records if each.levelno >= logging.INFO]) == 1


async def test_healthy_messages_start_the_back_off_again():
    class Healthy(Topics):
        async def messages(self, connection):
            for n in range(100):
                yield "a", n
                await anyio.sleep(0.1)
            raise ConnectionResetError("restart")

    async with Healthy(retry=Retry(min_delay=1, max_delay=30, jitter=0)) as topics:
        begun = anyio.current_time()
        for _ in range(5):
            await collect(topics, "a", [])
        assert anyio.current_time() - begun < 5 * 11


@pytest.mark.parametrize(
    ("messages_at", "lasts", "delay"),
    [([5.0], 6.0, 1.0), ([1.0, 2.0], 6.0, 30.0), ([], 29.0, 30.0), ([], 31.0, 1.0)],
)
async def test_after_long_delays_a_connection_is_healthy_as_a_run_is(messages_at, lasts, delay):
    opened = []

    class Restored(Topics):
        @asynccontextmanager
        async def connect(self):
            opened.append(anyio.current_time())
            if len(opened) <= 10:
                raise ConnectionResetError("refused")
            yield

        async def messages(self, connection):
            begun = anyio.current_time()
            for time in messages_at:
                await anyio.sleep_until(begun + time)
                yield "a", time
            await anyio.sleep_until(begun + lasts)

    async with Restored(retry=Retry(min_delay=1, max_delay=30, jitter=0)) as topics:
        while len(opened) < 12:
            await collect(topics, "a", [])
        assert opened[10] - opened[9] == pytest.approx(30)
        assert opened[11] - opened[10] == pytest.approx(lasts + delay)


async def test_an_upstream_that_is_left_lets_its_connection_say_goodbye():
    closed = []

    class Polite(Topics):
        @asynccontextmanager
        async def connect(self):
            yield
            await anyio.sleep(1)
            closed.append("goodbye")

    found = []
    async with anyio.create_task_group() as tasks:
        async with Polite() as topics:
            tasks.start_soon(collect, topics, "a", found)
            await anyio.sleep(1)
    assert closed == ["goodbye"] and "closing" in str(found[0])


# -- what is followed, last values -----------------------------------------------------------------


class Filters(Topics):
    def keys_for(self, address):
        return (key for key in self.followed if address.startswith(key.rstrip("#")))


async def test_followed_has_the_keys_with_followers_and_those_that_linger():
    async with Filters(linger=5) as topics:
        assert not topics.followed
        async with topics.follow("home/#") as home, topics.follow("home/a") as one:
            assert list(topics.followed) == ["home/#", "home/a"]
            topics.send("home/a", 1)
            topics.send("home/b", 2)
            assert [await anext(home), await anext(home), await anext(one)] == [1, 2, 1]
        assert len(topics.followed) == 2
        await anyio.sleep(6)
        assert not topics.followed


async def test_a_late_follower_gets_the_last_message_of_each_address_once():
    async with Filters(last_values=2) as topics, topics.follow("home/#") as first:
        topics.send("home/a", "a1", "a2")
        topics.send("home/b", "b1")
        topics.send("home/c", "c1")
        topics.send("home/b", "b2")
        for _ in range(5):
            await anext(first)
        async with topics.follow("home/#") as late:
            topics.send("home/a", "a3")
            assert [await anext(late) for _ in range(3)] == ["c1", "b2", "a3"]
        assert await anext(first) == "a3"


async def test_last_messages_end_with_the_subscription_and_are_off_by_default():
    async with Topics(last_values=1) as topics, topics.follow("other"):
        async with topics.follow("a") as messages:
            topics.send("a", 1)
            await anext(messages)
        await anyio.sleep(1)
        async with topics.follow("a") as messages:
            topics.send("a", 2)
            assert await anext(messages) == 2
    async with Topics() as topics, topics.follow("a") as first:
        topics.send("a", 1)
        await anext(first)
        async with topics.follow("a") as late:
            topics.send("a", 2)
            assert await anext(late) == 2


@pytest.mark.parametrize(
    "options, text",
    [
        ({"timeout": 0}, "timeout must be a number above 0, got 0"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"last_values": -1}, "last_values must be from 0"),
        ({"last_values": 11, "buffer": Buffer(rows=10)}, r"buffer.rows \(10\), got 11"),
    ],
)
async def test_an_option_out_of_range_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        Topics(**options)


# -- Save & test -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, shown",
    [
        (ConfigError("wrong password"), "wrong password"),
        (ConnectionRefusedError("connection refused"), "Topics failed: connection refused"),
        (ClientError("bad credentials"), "Topics failed: bad credentials"),
    ],
)
async def test_save_and_test_tries_a_connection_where_there_is_no_health_of_its_own(error, shown):
    topics = Topics()
    topics.refusal = error
    async with serve_in_memory(source(topics)) as grafana:
        assert await grafana.health() == (False, shown)
        assert topics.statistics().connects == 1
        topics.refusal = None
        await anyio.sleep(60)
        if not isinstance(error, ConfigError):
            assert await grafana.health() == (True, "connected")


async def test_save_and_test_uses_the_open_connection_and_opens_one_for_itself():
    topics = Topics()
    async with serve_in_memory(source(topics)) as grafana:
        assert await grafana.health() == (True, "connected")
        await anyio.sleep(1)
        viewer = await grafana.follow("t/a")
        await anyio.sleep(1)
        assert await grafana.health() == (True, "connected")
        assert topics.statistics().connects == 2
        topics.send("a", "still there")
        assert (await viewer.next())["text"] == "still there"


async def test_checks_during_an_outage_make_no_attempts():
    async with Topics(retry=Retry(min_delay=20, jitter=0)) as topics:
        topics.refusal = ConnectionRefusedError("connection refused")
        for _ in range(10):
            with pytest.raises(UpstreamError, match="connection refused"):
                await topics.check()
        assert topics.statistics().connects == 1
        await anyio.sleep(21)
        topics.refusal = None
        await topics.check()


async def test_save_and_test_finds_several_upstreams():
    good, bad = Topics(), Topics(name="second broker")
    bad.refusal = ConnectionRefusedError("connection refused")

    class Both(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            async with good, bad:
                self.brokers = {"one": good, "two": bad}
                yield

    async with serve_in_memory(Both) as grafana:
        assert await grafana.health() == (False, "second broker failed: connection refused")


async def test_a_check_that_is_cancelled_leaves_no_connection():
    class Slow(Topics):
        @asynccontextmanager
        async def connect(self):
            await anyio.sleep(1)
            async with super().connect() as connection:
                yield connection

    async with Slow() as topics:
        with anyio.move_on_after(0.5):
            await topics.check()
        await anyio.sleep(2)
        assert topics._phase == "idle" and not topics._is_running


async def test_checking_before_entering_is_an_error():
    with pytest.raises(RuntimeError, match="entered in `lifespan`"):
        await Topics().check()


def test_the_double_is_an_upstream():
    assert issubclass(UpstreamDouble, Upstream)
