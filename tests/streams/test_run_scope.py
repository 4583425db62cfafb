"""What a run has opened is closed when it ends."""

import asyncio

import pytest

from aiostream_ds._author_code import cancel
from aiostream_ds._run_scope import RunScope


class Slow:
    """Waits in `aclose`."""

    def __init__(self, log):
        self.log = log

    async def aclose(self):
        self.log.append("begun")
        await asyncio.sleep(1)
        self.log.append("closed")


@pytest.mark.virtual
async def test_a_cancellation_while_one_resource_closes_does_not_leave_the_others_open():
    scope, log = RunScope(None), []
    resources = [Slow(log), Slow(log), Slow(log)]
    for each in resources:
        scope.add(each)
    task = asyncio.ensure_future(scope.aclose())
    await asyncio.sleep(0.5)
    cancel(task)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["begun", "begun", "closed", "begun", "closed"]
