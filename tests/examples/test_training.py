"""The training example: steps from a thread, with all earlier ones."""

import threading
from collections.abc import Iterator
from types import ModuleType

import anyio
import pytest

from aiostream_ds.testing import serve_in_memory
from tests.requirements import require

from .loading import load


@pytest.fixture
def training() -> Iterator[ModuleType]:
    try:
        yield load("training")
    except ModuleNotFoundError as error:
        require(error.name or "", False, f"{error.name} is not installed")


@pytest.mark.slow
async def test_a_panel_that_opens_late_has_every_step_once(training: ModuleType):
    thread = threading.Thread(target=training.train, args=(300,))
    thread.start()
    try:
        async with serve_in_memory(training.Training) as grafana:
            while len(training.log) < 20:
                await anyio.sleep(0.01)
            (frame,) = await grafana.query({"queryType": "metrics", "exact": True})
            viewer = await grafana.follow("x/metrics", frame=frame)
            earlier = list(frame.fields[1].values)
            live = [row["step"] for row in await viewer.take(100)]
        missed = live[0] - earlier[-1] - 1  # between the query and the subscription: fetched
        assert earlier == list(range(len(earlier))) and missed >= 0
        assert live == list(range(live[0], live[0] + 100))
    finally:
        await anyio.to_thread.run_sync(thread.join)


async def test_the_loss_falls(training: ModuleType):
    training.train(50)
    assert training.log[-1]["loss"] < training.log[0]["loss"]
    async with serve_in_memory(training.Training) as grafana:
        (frame,) = await grafana.query({"queryType": "metrics"})
    assert frame.rows == 50
