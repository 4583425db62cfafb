"""Isolation of an author's code: it must not end more than the call in which it runs.

`sys.exit()` would end the plugin. A task or future that the author awaits and that was cancelled
looks like a cancellation of the current task, and would end the whole task group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import anyio

from aiostream_ds._streams.producer import is_stray_cancellation

__all__ = ["isolate"]


@contextmanager
def isolate() -> Iterator[None]:
    """Turn SystemExit, and a cancellation that nobody requested, into RuntimeError.

    A cancellation by an enclosing cancel scope or by another task passes through.
    """
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"the author's code called sys.exit({error.code!r})") from error
    except anyio.get_cancelled_exc_class() as error:
        if anyio.current_effective_deadline() == -inf or not is_stray_cancellation():
            raise
        raise RuntimeError(
            "the author's code awaited a task or future that was cancelled"
        ) from error
