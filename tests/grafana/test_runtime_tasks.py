"""Tasks of the runtime on asyncio alone."""

import asyncio

import anyio
import pytest

from aiostream_ds._author_code import is_cancel_requested
from aiostream_ds._grafana.runtime_tasks import runtime_tasks


async def test_tasks_are_cancelled_and_awaited_when_the_block_ends():
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(is_cancel_requested())
            await asyncio.sleep(0)
            ended.append("waited")

    async with runtime_tasks() as tasks:
        tasks.start(work())
        await asyncio.sleep(0)
    assert ended == [True, "waited"]


async def test_a_task_that_fails_ends_the_block_with_its_error():
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ExceptionGroup) as raised:
        async with runtime_tasks() as tasks:
            tasks.start(fail())
            await asyncio.Event().wait()
    assert [str(error) for error in raised.value.exceptions] == ["broken"]
    assert asyncio.current_task().cancelling() == 0


async def test_an_error_while_tasks_are_cancelled_is_raised():
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("broken")

    with pytest.raises(ExceptionGroup):
        async with runtime_tasks() as tasks:
            tasks.start(fail())
            await asyncio.sleep(0)


async def test_an_error_of_the_block_is_raised_as_it_is():
    with pytest.raises(KeyError):
        async with runtime_tasks() as tasks:
            tasks.start(asyncio.sleep(100))
            raise KeyError


async def test_an_error_of_a_task_is_logged_when_another_one_is_raised(caplog):
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("broken")

    with pytest.raises(KeyError):
        async with runtime_tasks() as tasks:
            tasks.start(fail())
            await asyncio.sleep(0)
            raise KeyError
    (record,) = caplog.records
    assert str(record.exc_info[1]) == "broken"


async def test_a_scope_that_is_cancelled_around_the_block_waits_for_the_tasks():
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            ended = True

    with anyio.CancelScope() as scope:
        async with runtime_tasks() as tasks:
            tasks.start(work())
            await asyncio.sleep(0)
            scope.cancel()
            await asyncio.Event().wait()
    assert scope.cancelled_caught and ended
    assert asyncio.current_task().cancelling() == 0
