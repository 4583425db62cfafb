"""Three NATS servers with copies of the streams: the leader is killed, and comes back."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from aiostream_ds._cluster.engine import START, Appended, EngineError, Entry, EntryId
from tests.cluster.nats.engines import Writer, engine
from tests.servers import nats_cluster
from tests.servers.nats import NatsClusterNode

# an election takes up to nine seconds
pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


ELECTION = 30.0


@pytest.fixture
def nodes() -> Iterator[Sequence[NatsClusterNode]]:
    with nats_cluster() as running:
        yield running


def all_urls(nodes: Sequence[NatsClusterNode]) -> str:
    return ",".join(node.url for node in nodes)


def leader(nodes: Sequence[NatsClusterNode]) -> NatsClusterNode:
    info = nodes[0].call("$JS.API.STREAM.INFO.aiostream-ds-log")
    return next(node for node in nodes if f"n{node.port}" == info["cluster"]["leader"])


async def append_until_it_succeeds(engine, channel: str, entry: Entry) -> None:
    async with asyncio.timeout(ELECTION):
        while True:
            try:
                await engine.append(channel, entry)
                return
            except EngineError:
                await asyncio.sleep(0.05)


async def test_no_acknowledged_entry_is_lost_when_the_leader_is_killed(nodes):
    async with (
        engine(nodes[0], "a", url=all_urls(nodes), replicas=3) as a,
        engine(nodes[0], "b", url=all_urls(nodes), replicas=3) as b,
    ):
        writer = Writer(a, "c", "a")
        await writer.take()
        await writer.write(20)
        previous = writer.last
        leader(nodes).kill()
        for number in range(21, 41):
            id = EntryId(previous.term, number)
            await append_until_it_succeeds(a, "c", Entry(id, previous, b"x"))
            previous = id
        page = await b.read("c", START, 100)
        assert [entry.id.number for entry in page.entries] == list(range(41))


async def test_entries_are_not_missed_after_watch_at_another_server_than_the_leader(nodes):
    async with engine(nodes[0], "a", url=all_urls(nodes), replicas=3) as a:
        others = [node for node in nodes if node is not leader(nodes)]
        async with engine(others[0], url=others[0].url, replicas=3) as b:
            events = b.events()
            for number in range(50):
                channel = f"c-{number}"
                await b.watch(channel)
                writer = Writer(a, channel, "a")
                await writer.take()
                async with asyncio.timeout(ELECTION):
                    event = await anext(events)
                assert isinstance(event, Appended) and event.channel == channel


async def test_what_was_appended_is_read_at_each_server_at_once(nodes):
    async with engine(nodes[0], "a", url=all_urls(nodes), replicas=3) as a:
        readers = [engine(node, url=node.url, replicas=3) for node in nodes]
        opened = [await each.__aenter__() for each in readers]
        writer = Writer(a, "c", "a")
        await writer.take()
        for number in range(30):
            await writer.write()
            pages = await asyncio.gather(*(each.read("c", START, 100) for each in opened))
            assert [len(page.entries) for page in pages] == [number + 2] * 3
        for each in readers:
            await each.__aexit__(None, None, None)


async def test_servers_that_are_not_in_the_settings_are_found(nodes):
    async with engine(nodes[0], "a", url=nodes[0].url, replicas=3) as a:
        nodes[0].kill()
        async with asyncio.timeout(ELECTION):
            while True:
                try:
                    await a.renew("a", 60.0)
                    return
                except EngineError:
                    await asyncio.sleep(0.05)
