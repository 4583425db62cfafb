"""`async for` over `Upstream.follow`, without `async with`."""

import asyncio
import gc
import threading
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds import ConfigError, DataSource, UpstreamError, stream
from aiostream_ds.testing import UpstreamDouble, serve_in_memory

pytestmark = pytest.mark.virtual


@asynccontextmanager
async def connected(**options):
    async with UpstreamDouble(**options) as upstream:
        yield upstream


async def settle():
    await anyio.sleep(0.1)


async def test_it_subscribes_when_the_first_message_is_asked_for():
    async with connected() as upstream:
        messages = upstream.follow("a")
        await settle()
        assert upstream.statistics().subscribers == 0
        task = asyncio.ensure_future(anext(messages))
        await settle()
        assert upstream.subscribed == {"a"}
        upstream.send("a", 1, 2)
        assert [await task, await anext(messages)] == [1, 2]
        await messages.aclose()
        await settle()
        assert upstream.statistics().subscribers == 0 and not upstream.subscribed


async def test_a_timeout_around_anext_loses_no_message_also_while_it_subscribes():
    async with connected() as upstream:
        messages = upstream.follow("a")
        with anyio.move_on_after(0):
            await anext(messages)
        await settle()
        upstream.send("a", 1)
        await settle()
        assert await anext(messages) == 1
        with anyio.move_on_after(5):
            await anext(messages)
        upstream.send("a", 2)
        await settle()
        assert await anext(messages) == 2
        await messages.aclose()


@pytest.mark.slow
async def test_the_subscription_ends_when_nothing_refers_to_it():
    async with connected() as upstream:

        async def first():
            async for message in upstream.follow("a"):
                return message

        task = asyncio.ensure_future(first())
        await settle()
        upstream.send("a", 1)
        assert await task == 1
        del task
        gc.collect()
        await settle()
        assert upstream.statistics().subscribers == 0 and not upstream.subscribed


async def test_it_may_be_collected_in_another_thread():
    async with connected() as upstream:
        found = [upstream.follow("a")]
        task = asyncio.ensure_future(anext(found[0]))
        await settle()
        upstream.send("a", 1)
        await task
        del task
        thread = threading.Thread(target=found.clear)
        thread.start()
        thread.join()
        await settle()
        assert upstream.statistics().subscribers == 0


async def test_it_ends_with_stop_iteration_after_aclose_and_does_not_subscribe_again():
    async with connected() as upstream:
        messages = upstream.follow("a")
        await messages.aclose()
        await messages.aclose()
        assert [message async for message in messages] == []
        with pytest.raises(RuntimeError, match="one `async with` for each call of follow"):
            async with messages:
                pass


async def test_one_subscription_has_one_block():
    async with connected() as upstream:
        messages = upstream.follow("a")
        async with messages as found:
            upstream.send("a", 1)
            assert await anext(found) == 1
        with pytest.raises(RuntimeError, match="got another"):
            async with messages:
                pass
        assert upstream.statistics().subscribers == 0


async def test_a_cancelled_block_leaves_no_subscription():
    class Slow(UpstreamDouble):
        async def subscribe(self, connection, key):
            await anyio.sleep_forever()

    async with Slow(timeout=100) as upstream:
        with anyio.move_on_after(1):
            async with upstream.follow("a"):
                raise AssertionError("it is not subscribed")
        assert upstream.statistics().subscribers == 0


@pytest.mark.parametrize("error", [UpstreamError("gone"), ConfigError("wrong password")])
async def test_errors_of_the_connection_are_raised_by_the_iterator(error):
    async with connected() as upstream:
        upstream.refusal = error
        with pytest.raises(type(error), match=str(error)):
            await anext(upstream.follow("a"))


async def test_an_upstream_that_was_not_entered_is_an_error_of_the_iterator():
    messages = UpstreamDouble().follow("a")
    with pytest.raises(RuntimeError, match="to be entered in `lifespan`"):
        await anext(messages)


class House(DataSource):
    """Streams that read the messages directly, and one that leaves the loop early."""

    @asynccontextmanager
    async def lifespan(self):
        async with UpstreamDouble() as self.topics:
            yield

    @stream
    async def topic(self, name: str):
        async for message in self.topics.follow(name):
            yield {"n": message}

    @stream
    async def first(self, name: str):
        self.messages = self.topics.follow(name)  # still referred to after the run
        async for message in self.messages:
            yield {"n": message}


@pytest.mark.parametrize("path", ["topic/a", "first/a"])
async def test_the_subscription_ends_with_the_run_of_the_stream(path):
    async with serve_in_memory(House) as grafana:
        house = await grafana.data_source(House)
        viewer = await grafana.follow(path)
        await settle()
        house.topics.send("a", 1)
        assert (await viewer.next())["n"] == 1
        viewer.leave()
        await anyio.sleep(30)  # Grafana's stream manager ends it
        assert house.topics.statistics().subscribers == 0 and not house.topics.subscribed


async def test_a_stream_is_retried_after_the_connection_was_lost():
    async with serve_in_memory(House) as grafana:
        house = await grafana.data_source(House)
        viewer = await grafana.follow("first/a")
        await settle()
        house.topics.disconnect()
        await anyio.sleep(30)
        assert house.topics.statistics().subscribers == 1
        house.topics.send("a", 2)
        assert (await viewer.next())["n"] == 2
