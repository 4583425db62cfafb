"""Coroutines that are watched at each of their suspensions."""

import types


async def observed(work, on_suspend):
    """Run `work`, and call `on_suspend` each time it suspends. Returns its result."""
    try:
        signal = work.send(None)
    except StopIteration as stop:
        return stop.value
    return await rest_of(work, signal, on_suspend)


async def rest_of(work, signal, on_suspend=lambda: None):
    """Go on with `work`, which has suspended with `signal`; see `observed`."""
    return await _continued(work, signal, on_suspend)


@types.coroutine
def _continued(work, signal, on_suspend):
    try:
        while True:
            on_suspend()
            try:
                answer = yield signal
            except BaseException as error:
                signal = work.throw(error)
            else:
                signal = work.send(answer)
    except StopIteration as stop:
        return stop.value
