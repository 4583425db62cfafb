"""Around an author's code: what it may raise beyond errors must not end more than its own call.

`sys.exit()` would end the plugin. A task or future that the author awaits and somebody cancelled
looks like the cancellation of our own task, and would end a whole task group of ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import anyio

from aiostream_ds._streams.producer import nobody_cancels

__all__ = ["authors_code"]


@contextmanager
def authors_code() -> Iterator[None]:
    """Turns SystemExit, and a cancellation that nobody asked of this task, neither a scope around
    it nor whoever started it, into RuntimeError."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"the author's code called sys.exit({error.code!r})") from error
    except anyio.get_cancelled_exc_class() as error:
        if anyio.current_effective_deadline() == -inf or not nobody_cancels():
            raise
        raise RuntimeError("the author's code awaited something that was cancelled") from error
