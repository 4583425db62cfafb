"""Callers at the same time share one request, which begins after they have called."""

import asyncio

import pytest

from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.nats.shared_call import SharedCall


class Requests:
    """Requests whose answers the test gives."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[int]] = []
        self.shared = SharedCall(self.send, "test")

    async def send(self) -> int:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    async def ask(self, count: int) -> list["asyncio.Task[int]"]:
        callers = [asyncio.create_task(self.shared()) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return callers


async def test_callers_get_the_answer_to_a_request_that_began_after_they_have_called():
    requests = Requests()
    early = await requests.ask(3)
    late = await requests.ask(20)
    assert len(requests.answers) == 1
    requests.answers[0].set_result(1)
    assert await asyncio.gather(*early) == [1, 1, 1]
    await asyncio.sleep(0)
    assert len(requests.answers) == 2
    requests.answers[1].set_result(2)
    assert await asyncio.gather(*late) == [2] * 20


async def test_an_error_is_raised_for_each_caller_and_not_for_the_next_one():
    requests = Requests()
    callers = await requests.ask(2)
    requests.answers[0].set_exception(EngineError("no answer"))
    for caller in callers:
        with pytest.raises(EngineError, match="no answer"):
            await caller
    (next_one,) = await requests.ask(1)
    requests.answers[1].set_result(2)
    assert await next_one == 2


async def test_a_caller_that_is_cancelled_does_not_cancel_the_others():
    requests = Requests()
    first, second = await requests.ask(2)
    first.cancel()
    await asyncio.sleep(0)
    requests.answers[0].set_result(1)
    assert await second == 1
    assert first.cancelled()


async def test_after_the_end_of_the_engine_callers_get_an_error_and_are_not_cancelled():
    requests = Requests()
    callers = [*await requests.ask(1), *await requests.ask(1)]
    await requests.shared.aclose()
    for caller in callers:
        with pytest.raises(EngineError, match="closed"):
            await caller
