"""Cancellation at any time, and many entries: nothing is lost, doubled or kept in memory."""

import asyncio
import gc
import random
import tracemalloc

import anyio
import msgspec
import pytest
from redis.asyncio import Redis as Client

from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.sources.redis.live_entries import live_entries
from aiostream_ds.sources.redis.positions import Position
from tests.servers import Redis

from .connecting import encoded, serving, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ADD = """
for n = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1 do
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', 200000, '*', 'n', n, 'side', 'buy')
end
"""


async def test_a_reader_that_is_cancelled_loses_and_doubles_no_entry(server: Redis, client: Client):
    random.seed(1)
    add, count = client.register_script(ADD), 0
    async with serving(server) as grafana:
        servers = (await grafana.data_source(Source))._servers
        position = Position((0, 0))
        numbers: list[int] = []

        async def read() -> None:
            async with live_entries(servers, {b"orders": position}) as found:
                async for batches in found:
                    for batch in batches:
                        numbers.extend(int(values[1]) for _, values in batch.entries)

        is_done = False

        async def write() -> None:
            nonlocal count
            while not is_done:
                await add(keys=["orders"], args=[count, 7])
                count += 7
                await asyncio.sleep(0.001)

        writer = asyncio.create_task(write())
        for _ in range(300):
            with anyio.move_on_after(random.random() * 0.02):
                await read()
        is_done = True
        await writer
        reader = asyncio.create_task(read())
        await until(lambda: len(numbers) >= count)
        reader.cancel()
        await asyncio.wait([reader])
        assert numbers == list(range(count)) and count > 1_000


async def test_a_command_that_is_cancelled_leaves_no_answer_to_another(
    server: Redis, client: Client
):
    random.seed(2)
    for number in range(200):
        await client.xadd(f"s{number}", {"n": number})
    async with serving(server) as grafana:
        servers = (await grafana.data_source(Source))._servers
        answered = 0

        async def ask(number: int) -> None:
            nonlocal answered
            with anyio.move_on_after(random.random() * 0.2):
                address = await servers.address()
                found = await servers.command(address, "XRANGE", f"s{number}", "-", "+")
                assert int(found[0][1][1]) == number
                answered += 1

        for _ in range(25):
            async with anyio.create_task_group() as tasks:
                for number in random.sample(range(200), 20):
                    tasks.start_soon(ask, number)
        assert 20 < answered < 500
    await until(lambda: _has_no_reader(client))


async def _has_no_reader(client: Client) -> bool:
    return all(each["user"] != Redis.reader for each in await client.client_list())


class Counting:
    """A subscriber that keeps no packet."""

    def __init__(self) -> None:
        self.rows, self.next, self.wrong = 0, 0, 0

    def push(self, packet: bytes) -> None:
        values = msgspec.json.decode(packet).get("data", {}).get("values")
        if values:
            numbers = values[3]
            self.wrong += numbers != list(range(self.next, self.next + len(numbers)))
            self.rows += len(numbers)
            self.next = int(numbers[-1]) + 1

    def end(self) -> None:
        pass


@pytest.mark.alone
async def test_ten_thousand_entries_a_second_need_no_memory(server: Redis, client: Client):
    add, rate, seconds = client.register_script(ADD), 10_000, 15
    async with serving(server) as grafana:
        sink = Counting()
        await grafana.attach(f"entries/{encoded('orders')}", sink)
        await until(lambda: _is_reading(client))
        tracemalloc.start()
        sizes = []
        number, start = 0, asyncio.get_running_loop().time()
        while (passed := asyncio.get_running_loop().time() - start) < seconds:
            due = round(passed * rate)
            await add(keys=["orders"], args=[number, due - number])
            number = due
            if passed > (len(sizes) + 1) * seconds / 4:
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            await asyncio.sleep(0.02)
        tracemalloc.stop()
        await until(lambda: sink.rows == number, 30)
        assert sink.wrong == 0 and number > rate * seconds * 0.9
        assert sizes[-1] - sizes[0] < 2_000_000, sizes
        assert (await grafana.metrics())["aiostream_ds_rows_dropped_total"] == 0


async def _is_reading(client: Client) -> bool:
    return any(each["cmd"] == "xread" for each in await client.client_list())
