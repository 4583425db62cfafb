"""Operators that join sources, and a timeout around the next row."""

import anyio
import pytest

from aiostream_ds.operators import combine_latest, merge, with_timeout
from tests.operators.kit import Source, collect

pytestmark = pytest.mark.virtual


async def test_a_timeout_yields_its_default_and_loses_no_row():
    source = Source((0, 1), (25, 2), (5, 3))
    begun = anyio.current_time()
    found = [(row, anyio.current_time() - begun) async for row in with_timeout(source(), 10)]
    assert found == [(1, 0), (None, 10), (None, 20), (2, 25), (3, 30)]
    assert source.closed == 1


async def test_the_default_of_a_timeout_can_be_chosen():
    found = await collect(with_timeout(Source((0, 1), (3, 2))(), 2, "silent"))
    assert found == [1, "silent", 2]


async def test_a_timeout_around_an_operator_loses_no_row():
    rows = with_timeout(Source(*[(1, n) for n in range(5)])(), 100)
    found = []
    while len(found) < 5:
        with anyio.move_on_after(0.3):
            found.append(await anext(rows))
    assert found == list(range(5))
    await rows.aclose()


# merge, combine_latest


async def test_merged_rows_come_as_they_arrive():
    one, two = Source((1, "a"), (2, "b"), (2, "c")), Source((2, 1), (2, 2))
    assert await collect(merge(one(), two())) == ["a", 1, "b", 2, "c"]
    assert (one.closed, two.closed) == (1, 1)


async def test_the_newest_rows_are_joined_when_each_source_has_had_one():
    one, two = Source((1, "a"), (2, "b"), (2, "c")), Source((2, 1), (2, 2))
    assert await collect(combine_latest(one(), two())) == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("c", 2),
    ]


async def test_no_sources_are_no_rows():
    assert await collect(merge()) == await collect(combine_latest(*())) == []


async def test_lists_are_sources_too():
    assert sorted(await collect(merge([1, 2], (3,), iter([4])))) == [1, 2, 3, 4]
