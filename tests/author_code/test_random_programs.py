"""Small programs of mistakes, drawn at random: the plugin, and the streams of others, go on.

AUTHOR_PROGRAMS sets how many are drawn; each is printed by its seed when it fails.
"""

import asyncio
import logging
import os
import random
from contextlib import asynccontextmanager

import anyio
import pytest
from grpclib import GRPCError

from aiostream_ds import DataSource, Frame, Health, HistoryRange, Query, query, resource, stream
from aiostream_ds._author_code import is_cancel_requested
from aiostream_ds._grafana.instances import CLOSE_GRACE, CLOSE_TIMEOUT, OPEN_TIMEOUT
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory
from aiostream_ds.testing.grafana import open_grafana
from tests.author_code.test_every_entry_point import PanicException

FEW = 5
PROGRAMS = int(os.environ.get("AUTHOR_PROGRAMS", "200"))

pytestmark = [pytest.mark.virtual, pytest.mark.timeout(60 + PROGRAMS)]

PLACES = ["open", "close", "health", "query", "parts", "row", "history", "subscribe", "publish"]
RAISED = [ValueError, SystemExit, KeyboardInterrupt, PanicException, GeneratorExit]
RAISED += [asyncio.CancelledError, MemoryError, StopAsyncIteration]
ENDLESS = 10_000.0


class Program:
    """What happens at each place: some steps, which end with an await or a mistake."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        place = self.choose.choice(PLACES)
        self.steps = {place: self._steps()}
        if self.choose.random() < 0.5:
            self.steps[self.choose.choice(PLACES)] = self._steps()
        self.left = {name: self.choose.randint(1, 3) for name in self.steps}
        self.mistakes = 0

    def _steps(self):
        kinds = ["pause", "raise", "hang", "cancel", "future", "swallow", "group", "thread", "task"]
        return [self.choose.choice(kinds) for _ in range(self.choose.randint(1, 3))]

    async def at(self, place):
        """Make the mistakes of this place, the first few times that it is reached."""
        if self.left.get(place, 0) <= 0:
            return
        self.left[place] -= 1
        try:
            for step in self.steps[place]:
                await getattr(self, step)()
        except BaseException:
            # after its cancellation was requested, a task may end in any way, without a log line
            self.mistakes += not is_cancel_requested()
            raise

    async def pause(self):
        await anyio.sleep(self.choose.random())

    def _raise(self):
        raise self.choose.choice(RAISED)("a mistake")

    async def raise_(self):
        self._raise()

    async def hang(self):
        await anyio.sleep(ENDLESS)

    async def cancel(self):
        asyncio.current_task().cancel()
        await anyio.sleep(1)

    async def future(self):
        await self._await_a_cancelled_future()

    async def task(self):
        await asyncio.ensure_future(self._await_a_cancelled_future())

    async def _await_a_cancelled_future(self):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def swallow(self):
        try:
            await anyio.sleep(self.choose.choice([1, ENDLESS]))
        except BaseException:
            await anyio.sleep(self.choose.choice([0, 0.5]))

    async def group(self):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)
            self._raise()

    async def thread(self):
        await asyncio.to_thread(self._raise_in_thread)

    def _raise_in_thread(self):
        raise self.choose.choice([ValueError, SystemExit, KeyboardInterrupt, PanicException])


setattr(Program, "raise", Program.raise_)


class Faulty(DataSource):
    program: Program

    @asynccontextmanager
    async def lifespan(self):
        if self.instance.uid == "faulty":
            await self.program.at("open")
        yield
        if self.instance.uid == "faulty":
            await self.program.at("close")

    async def health(self):
        await self.program.at("health")
        return Health()

    @query("q")
    async def q(self, q: Query) -> Frame:
        await self.program.at("query")
        return Frame()

    @resource("parts")
    async def parts(self):
        yield b"first"
        await self.program.at("parts")
        yield b"second"

    @stream("rows")
    async def rows(self):
        while True:
            yield {"n": 1}
            await self.program.at("row")
            await anyio.sleep(0.5)

    @rows.history
    async def past(self, history_range: HistoryRange) -> list[dict]:
        await self.program.at("history")
        return []

    @rows.subscribe
    async def may(self, user):
        await self.program.at("subscribe")

    @rows.publish
    async def take(self, value: int):
        await self.program.at("publish")

    @stream("good")
    async def good(self):
        while True:
            yield {"n": 1}
            await anyio.sleep(1)


async def attempt(make_call):
    """One call of a dashboard, which is answered or given up by the host."""
    try:
        with anyio.move_on_after(OPEN_TIMEOUT + 5):
            await make_call()
    except (GRPCError, QueryFailed, Refused, ValueError):
        pass


async def use(program, grafana, good):
    calls = [
        lambda: grafana.health(),
        lambda: grafana.query({"queryType": "q"}),
        lambda: grafana.query({"queryType": "rows"}),
        lambda: grafana.resource("parts"),
        lambda: grafana.follow("rows"),
        lambda: grafana.publish("rows", 1),
    ]
    before, began = len(good.rows), anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(attempt, call)
    await grafana.change_settings({"saved": 1})
    await attempt(grafana.health)
    await anyio.sleep(CLOSE_GRACE + CLOSE_TIMEOUT)
    late = anyio.current_time() - began - (len(good.rows) - before)
    assert late < 2, f"rows of another data source are {late:.1f} s late"
    program.left.clear()
    ok = False
    for _ in range(3):  # a lifespan that was given up may still have to end
        with anyio.move_on_after(OPEN_TIMEOUT + 5):
            ok = ok or (await grafana.health())[0]
    assert ok, "the data source does not work after its mistakes"


async def play(seed, caplog):
    caplog.clear()
    Faulty.program = program = Program(seed)
    async with serve_in_memory(Faulty, uid="good") as healthy:
        good = await healthy.follow("good")
        async with open_grafana(healthy.plugin, uid="faulty") as grafana:
            await use(program, grafana, good)
    logged = [logging.Formatter().format(each) for each in caplog.records if each.exc_info]
    if program.mistakes:
        assert any("test_random_programs.py" in text and "line" in text for text in logged)


async def play_all(seeds, caplog):
    for seed in seeds:
        try:
            await play(seed, caplog)
        except BaseException as error:
            raise AssertionError(f"program {seed}: {vars(Program(seed))}") from error


@pytest.mark.slow
async def test_a_few_random_programs_of_mistakes_affect_nobody_else(caplog):
    await play_all(range(FEW), caplog)


@pytest.mark.slow
@pytest.mark.alone
async def test_random_programs_of_mistakes_affect_nobody_else(caplog):
    await play_all(range(FEW, PROGRAMS), caplog)
