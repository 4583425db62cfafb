"""Around an author's code: what it may raise beyond errors must not end more than its own call.

`sys.exit()` would end the plugin. A task or future that the author awaits and somebody cancelled
looks like the cancellation of our own task, and would end a whole task group of ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import anyio

__all__ = ["authors_code"]


@contextmanager
def authors_code() -> Iterator[None]:
    """Turns SystemExit, and a cancellation that no scope around this task asked for, into
    RuntimeError. For tasks of an anyio task group, in which every real cancellation has a scope."""
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"the author's code called sys.exit({error.code!r})") from error
    except anyio.get_cancelled_exc_class() as error:
        if anyio.current_effective_deadline() == -inf:
            raise
        raise RuntimeError("the author's code awaited something that was cancelled") from error
