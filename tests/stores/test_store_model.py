"""A store is compared with a list: random appends, retention, deletions and reads."""

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiostream_ds.stores import Retention, SqliteStore

CHANNELS = st.sampled_from(["a", "b"])
# equal times, going back, the years 1 and 9999, the limits of 64 bits
TIMES = st.one_of(
    st.integers(0, 20),
    st.integers(0, 10**13),
    st.sampled_from([-62_135_596_800_000, 253_402_300_799_999, -(2**62), 2**62]),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3).flatmap(
        lambda row: TIMES.map(lambda time: {"time": time, **row})
    ),
    max_size=12,
)
KEYS = st.one_of(st.none(), st.sampled_from(["k1", "k2", "k3"]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), CHANNELS, ROWS, KEYS),
        st.tuples(st.just("append"), CHANNELS, ROWS, KEYS),
        st.tuples(st.just("together"), CHANNELS, st.lists(ROWS, max_size=4)),
        st.tuples(st.just("delete"), CHANNELS),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("after"), CHANNELS, st.integers(0, 60), st.integers(0, 20)),
        st.tuples(st.just("between"), CHANNELS, TIMES, TIMES, st.integers(0, 20)),
    ),
    max_size=25,
)


class Model:
    """One channel as a list."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.last = 0
        self.keys: dict[str, tuple[int, int]] = {}

    def append(
        self, rows: list[dict[str, Any]], key: str | None, most: int
    ) -> tuple[int, int, bool]:
        if not rows:
            return self.last + 1, self.last, False
        if key is not None and key in self.keys:
            return *self.keys[key], True
        first = self.last + 1
        for row in rows:
            self.last += 1
            self.rows.append(row | {"cursor": self.last})
        if key is not None:
            self.keys[key] = first, self.last
        del self.rows[: max(0, len(self.rows) - most)]
        return first, self.last, False

    @property
    def first(self) -> int:
        return self.rows[0]["cursor"] if self.rows else self.last + 1

    def after(self, cursor: int, limit: int) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["cursor"] > cursor][:limit]

    def between(self, start: int, end: int, limit: int) -> list[dict[str, Any]]:
        found = [row for row in self.rows if start <= row["time"] <= end]
        return sorted(found, key=lambda row: (row["time"], row["cursor"]))[::-1][:limit]


async def play(directory: str | None, most: int, steps: list[Any]) -> None:
    retention = Retention(rows=most)
    store = SqliteStore(directory, retention=retention)
    await store.__aenter__()
    models = {"a": Model(), "b": Model()}
    try:
        for step, *arguments in steps:
            if step == "reopen":
                if directory is not None:
                    before = store.bytes
                    await store.aclose()
                    store = SqliteStore(directory, retention=retention)
                    await store.__aenter__()
                    assert store.bytes == before
                continue
            channel = arguments[0]
            model = models[channel]
            if step == "append":
                _, rows, key = arguments
                assert await store.append(channel, rows, key) == model.append(rows, key, most)
            elif step == "together":
                found = await asyncio.gather(*(store.append(channel, r) for r in arguments[1]))
                # an append without rows is answered at once
                wanted = [model.append(rows, None, most) for rows in arguments[1]]
                pairs = zip(found, wanted, arguments[1], strict=True)
                assert all(each == other for each, other, rows in pairs if rows)
            elif step == "delete":
                assert await store.delete(channel) is (model.last > 0)
                models[channel] = Model()
            elif step == "after":
                page = await store.rows_after(*arguments)
                assert page.rows == model.after(*arguments[1:])
                assert (page.first, page.last) == (model.first, model.last)
            else:
                page = await store.rows_between(*arguments)
                wanted_rows = model.between(*arguments[1:])
                assert sorted(r["time"] for r in page.rows) == sorted(
                    r["time"] for r in wanted_rows
                )
                cursors = [row["cursor"] for row in page.rows]
                assert cursors == sorted(set(cursors))
                assert all(row in model.rows for row in page.rows)
        known = {name: len(model.rows) for name, model in models.items() if model.last}
        channels = await store.channels()
        assert {each.channel: each.rows for each in channels} == known
        assert sum(each.bytes for each in channels) == store.bytes
    finally:
        await store.aclose()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(most=st.sampled_from([1, 7, 10_000]), steps=STEPS)
def test_a_store_in_memory_is_a_list(most, steps):
    asyncio.run(play(None, most, steps))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(most=st.sampled_from([1, 7, 10_000]), steps=STEPS)
def test_a_store_in_a_file_is_a_list(most, steps):
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(directory, most, steps))
