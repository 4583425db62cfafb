"""What outlives a change of the settings: `DataSource.state`, and the logs of exact panels."""

import gc
import weakref

import anyio
import pytest

from aiostream_ds import Broadcast, DataSource, Health, Secret, Settings, secret, stream
from aiostream_ds._grafana.application import IDLE_SWEEP
from aiostream_ds._grafana.instances import CLOSE_GRACE, IDLE_TIMEOUT
from aiostream_ds.datasource import create_instance
from aiostream_ds.testing import serve_in_memory

pytestmark = pytest.mark.virtual


class Mode(Settings):
    mode: str = ""


class Counting(DataSource[Mode]):
    def __init__(self):
        self.state["opened"] = self.state.get("opened", 0) + 1

    async def health(self):
        return Health(message=str(self.state["opened"]))

    @stream("numbers")
    async def numbers(self):
        while True:
            self.state["n"] = self.state.get("n", 0) + 1
            yield {"n": self.state["n"]}
            await anyio.sleep(1)


async def test_the_state_outlives_a_change_of_the_settings():
    async with serve_in_memory(Counting) as grafana:
        assert (await grafana.health())[1] == "1"
        viewer = await grafana.follow("numbers")
        await viewer.take(3)
        await grafana.change_settings({"mode": "other"})
        assert (await grafana.health())[1] == "2"
        found = [row["n"] for row in await viewer.take(3)]
        assert found == list(range(found[0], found[0] + 3)) and found[0] >= 3


async def test_a_broadcast_in_the_state_is_not_closed_with_the_instance():
    class Hub(DataSource[Mode]):
        def __init__(self):
            self.readings = self.state.setdefault("readings", Broadcast())
            self.own = Broadcast()

        @stream("readings")
        async def rows(self):
            async for reading in self.readings.subscribe():
                yield reading

    async with serve_in_memory(Hub) as grafana:
        former = await grafana.data_source(Hub)
        await grafana.change_settings({"mode": "other"})
        viewer = await grafana.follow("readings")
        await anyio.sleep(CLOSE_GRACE + 1)
        assert former.own.is_closed
        former.readings.publish({"n": 1})
        assert (await viewer.next())["n"] == 1


@pytest.mark.slow
async def test_an_instance_that_was_replaced_is_freed_at_once():
    async with serve_in_memory(Counting) as grafana:
        former = weakref.ref(await grafana.data_source(Counting))
        gc.collect()
        gc.disable()
        try:
            await grafana.change_settings({"mode": "other"})
            await grafana.health()
            await anyio.sleep(CLOSE_GRACE + 1)
            assert former() is None
        finally:
            gc.enable()


async def test_another_data_source_and_another_organization_have_other_states():
    async with serve_in_memory(Counting) as grafana:
        contexts = [grafana.context(None) for _ in range(4)]
        contexts[1].data_source_instance_settings.uid = "other"
        contexts[2].org_id = 2
        contexts[3].namespace = "org-3"
        instances = [await grafana.plugin.instances.get(context) for context in contexts]
        assert len({id(instance.source.state) for instance in instances}) == 4


@pytest.mark.slow
async def test_the_state_is_dropped_with_an_instance_that_is_not_used():
    async with serve_in_memory(Counting) as grafana:
        await grafana.health()
        await grafana.change_settings({"mode": "other"})
        assert (await grafana.health())[1] == "2"
        await anyio.sleep(IDLE_TIMEOUT + IDLE_SWEEP + 1)
        assert not grafana.plugin.instances._states
        assert (await grafana.health())[1] == "1"


def test_an_instance_that_a_test_creates_has_a_state_of_its_own():
    first, second = (create_instance(Counting, Mode()) for _ in range(2))
    assert first.state == {"opened": 1} and first.state is not second.state


# The log of a stream without a cursor


async def _exact(grafana):
    (frame,) = await grafana.query({"queryType": "numbers", "exact": True})
    numbers = [field.values for field in frame.fields if field.name == "n"]
    return frame.meta.custom["cursor"], list(numbers[0]) if numbers else []


async def _some_rows(grafana):
    viewer = await grafana.follow("numbers")
    await grafana.query({"queryType": "numbers", "exact": True})  # from now on there is a log
    await viewer.take(3)
    return viewer


async def test_a_save_without_a_change_keeps_the_rows_of_exact_panels():
    async with serve_in_memory(Counting, settings={"mode": "a"}) as grafana:
        viewer = await _some_rows(grafana)
        before, rows = await _exact(grafana)
        assert len(rows) >= 2
        await grafana.change_settings({"mode": "a"})
        after, again = await _exact(grafana)
        assert after["epoch"] == before["epoch"] and again[: len(rows)] == rows
        await viewer.take(3)
        last, more = await _exact(grafana)
        assert last["epoch"] == before["epoch"] and last["last"] >= before["last"] + 3
        assert more == list(range(more[0], more[0] + len(more)))  # none is missing or doubled


@pytest.mark.parametrize("asked_between", [True, False])
async def test_other_settings_begin_another_log_also_if_they_are_saved_twice(asked_between):
    async with serve_in_memory(Counting, settings={"mode": "a"}) as grafana:
        await _some_rows(grafana)
        before, _ = await _exact(grafana)
        await grafana.change_settings({"mode": "b"})
        await grafana.health()
        if asked_between:
            between, _ = await _exact(grafana)
            assert between["epoch"] != before["epoch"]
        await grafana.change_settings({"mode": "b"})
        after, rows = await _exact(grafana)
        assert after["epoch"] != before["epoch"]
        assert not asked_between or after["epoch"] == between["epoch"]


async def test_another_secret_begins_another_log():
    class Secretive(Settings):
        password: Secret = secret()

    class Source(DataSource[Secretive]):
        numbers = Counting.numbers

    async with serve_in_memory(Source, secrets={"password": "one-secret"}) as grafana:
        await _some_rows(grafana)
        before, _ = await _exact(grafana)
        await grafana.change_settings({}, secrets={"password": "two-secret"})
        after, _ = await _exact(grafana)
        assert after["epoch"] != before["epoch"]
