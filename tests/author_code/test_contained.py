"""What takes the place of an error of an author's code."""

import asyncio
import sys

import pytest

from aiostream_ds._author_code import cancel, contained, describe, isolate, message_of, stack_of

pytestmark = pytest.mark.virtual


async def isolated(work):
    with isolate():
        return await work


def test_the_end_of_a_coroutine_without_an_event_loop_passes():
    async def wait():
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    coroutine = isolated(wait())
    loop.call_soon(coroutine.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    coroutine.close()  # would raise if anything but GeneratorExit came out


async def test_a_requested_cancellation_passes_and_one_of_its_own_does_not():
    async def wait():
        await asyncio.sleep(3600)

    requested, unasked = (asyncio.ensure_future(isolated(wait())) for _ in range(2))
    await asyncio.sleep(1)
    cancel(requested)
    unasked.cancel()
    await asyncio.wait([requested, unasked])
    assert requested.cancelled()
    assert "cancelled itself" in str(unasked.exception()) and unasked.cancelling() == 0


async def test_an_expired_scope_around_the_code_is_a_requested_cancellation():
    import anyio

    with anyio.move_on_after(1) as scope:
        await isolated(anyio.sleep_forever())
    assert scope.cancelled_caught


@pytest.mark.parametrize("error", [ValueError("a"), ExceptionGroup("b", [KeyError("c")])])
def test_an_exception_is_returned_as_it_is(error):
    assert contained(error) is error


def test_an_exception_is_found_in_a_group_with_cancellations():
    error = BaseExceptionGroup("b", [asyncio.CancelledError(), ValueError("a")])
    assert [str(each) for each in contained(error).exceptions] == ["a"]


def test_an_error_is_described_with_its_class():
    assert describe(ValueError("a")) == "ValueError: a"
    assert describe(ValueError()) == "ValueError"
    assert message_of(ValueError("a")) == "a"
    assert message_of(ValueError()) == "ValueError"
    assert str(contained(SystemExit(3))) == "the author's code called sys.exit(3)"


async def test_a_stack_goes_through_coroutines_and_generators():
    async def inner():
        await asyncio.sleep(3600)

    async def rows():
        yield 1
        await inner()

    async def outer():
        async for _ in rows():
            pass

    task = asyncio.ensure_future(outer())
    await asyncio.sleep(1)
    names = [line.rpartition(" in ")[2] for line in stack_of(task).splitlines()]
    assert names[:3] == ["outer", "rows", "inner"]
    task.cancel()
    await asyncio.wait([task])
    assert stack_of(task) == ""
    assert sys.exc_info() == (None, None, None)


def test_an_error_whose_message_raises_is_named_by_its_class():
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise SystemExit

    text = "Unprintable (its message raises SystemExit)"
    assert describe(Unprintable()) == message_of(Unprintable()) == text
