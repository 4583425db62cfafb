"""Waits for the end of the process that has started this one."""

import asyncio
import contextlib
import os

__all__ = ["POLL_INTERVAL", "wait_for_parent_exit"]

POLL_INTERVAL = 0.5
"""Seconds between two checks of the parent process on systems without pidfd."""


async def wait_for_parent_exit(parent: int) -> None:
    """Return when the parent process `parent` has exited. It may be process 1."""
    descriptor = None
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # the process has exited, or this is not permitted
            descriptor = os.pidfd_open(parent)
    try:
        while os.getppid() == parent:
            if descriptor is None:
                await asyncio.sleep(POLL_INTERVAL)
            else:
                await _wait_readable(descriptor)
                return
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def _wait_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
