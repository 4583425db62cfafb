"""When a node compares a silent channel with the log, in virtual time."""

import anyio
import pytest

from aiostream_ds._cluster.engine import START, EntryId
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.position_check import PositionCheck

pytestmark = pytest.mark.virtual


async def intervals(channels: int, count: int) -> list[float]:
    """The seconds between the checks of a channel without entries."""
    check = PositionCheck(NodeOptions(), START, lambda: channels, lambda: False)
    check.restart(START)
    found = []
    for _ in range(count):
        began = anyio.current_time()
        await anyio.sleep(check.delay)
        assert check.is_due(START)
        assert not check.is_due(START)
        found.append(anyio.current_time() - began)
    return found


async def test_a_silent_channel_is_checked_ever_later():
    for found, expected in zip(await intervals(1, 5), [1.5, 3, 6, 6, 6], strict=True):
        assert 0.8 * expected <= found <= 1.2 * expected


@pytest.mark.parametrize("channels", [3_000, 10_000])
async def test_a_node_checks_500_channels_a_second_at_most_on_average(channels):
    found = await intervals(channels, 200)
    assert min(found) >= 0.8 * channels / 500
    assert sum(found) / len(found) == pytest.approx(channels / 500, rel=0.05)


async def test_entries_put_the_check_off():
    check = PositionCheck(NodeOptions(), START, lambda: 10_000, lambda: False)
    check.restart(START)
    await anyio.sleep(check.delay)
    assert not check.is_due(EntryId(1, 1))
    assert check.delay >= 16


async def test_a_check_that_is_demanded_is_due_at_once_however_many_channels_there_are():
    check = PositionCheck(NodeOptions(), START, lambda: 10_000, lambda: False)
    check.restart(START)
    check.now()
    assert check.is_due(EntryId(1, 1))
    assert check.delay >= 16


@pytest.mark.parametrize("is_demanded", [False, True])
async def test_a_check_waits_for_other_calls_unless_it_is_demanded(is_demanded):
    waiting = [True]
    check = PositionCheck(NodeOptions(), START, lambda: 1, lambda: bool(waiting))
    check.restart(START)
    await anyio.sleep(check.delay)
    if is_demanded:
        check.now()
    assert check.is_due(START) == is_demanded
    waiting.clear()
    if not is_demanded:
        assert 0.5 <= check.delay <= 1
        await anyio.sleep(check.delay)
        assert check.is_due(START)
