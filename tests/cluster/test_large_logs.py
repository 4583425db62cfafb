"""Logs of many bytes are read in pages, by each engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aiostream_ds._cluster.engine import READ_BYTES, START, Engine, Entry, EntryId
from tests.cluster.model_engine import ModelEngine, ModelServer
from tests.cluster.nats import engines as nats
from tests.cluster.redis import engines as redis
from tests.servers import Nats

pytestmark = pytest.mark.slow

SIZE = 700_000
COUNT = 10  # less than the 8 MiB of a log in Redis


@asynccontextmanager
async def model_engine() -> AsyncIterator[Engine]:
    engine = ModelEngine(ModelServer(), seed=1)
    await engine.open()
    yield engine
    await engine.aclose()


@asynccontextmanager
async def redis_engine() -> AsyncIterator[Engine]:
    with redis.EngineRedis() as server:
        async with redis.opened(redis.engine(server)) as engine:
            yield engine


@asynccontextmanager
async def nats_engine() -> AsyncIterator[Engine]:
    with Nats() as server:
        async with nats.engine(server, "a") as engine:
            yield engine


ENGINES = {"model": model_engine, "redis": redis_engine, "nats": nats_engine}


@pytest.mark.parametrize("open_engine", ENGINES.values(), ids=ENGINES)
async def test_a_page_of_large_entries_is_bounded_and_the_next_one_continues(open_engine):
    async with open_engine() as engine:
        await engine.renew("a", 60)
        term = (await engine.take("c", "a", b"1")).term
        for number in range(COUNT):
            entry = Entry(EntryId(term, number + 1), EntryId(term, number), bytes([number]) * SIZE)
            await engine.append("c", entry)
        after, sizes, found = EntryId(term, 0), [], []
        while True:
            page = await engine.read("c", after, 100)
            sizes.append(sum(len(entry.payload) for entry in page.entries))
            found += [entry.payload[0] for entry in page.entries]
            if page.is_end:
                break
            after = page.entries[-1].id
        assert found == list(range(COUNT))
        assert len(sizes) == 2 and max(sizes) < READ_BYTES + SIZE


async def test_a_message_of_another_program_does_not_hide_the_log_of_nats():
    with Nats() as server:
        async with nats.engine(server, "a") as engine:
            writer = nats.Writer(engine, "c", "a")
            await writer.take()
            await writer.write(3)
            server.call("aiostream-ds.log.c", b"foreign")
            page = await engine.read("c", writer.written[0].id, 10)
            assert list(page.entries) == writer.written[1:]
            assert page.last == writer.last and page.is_end
            assert (await engine.read("c", START, 10)).last == writer.last
            again = await engine.take("c", "a", b"again")
            assert again.taken and again.last == writer.last and again.term > writer.last.term
