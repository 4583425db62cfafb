"""The class and the settings that a command works on, and a Grafana in memory before it."""

import argparse
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import anyio

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._grafana.application import background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._process.watchdog import watch_loop
from aiostream_ds.cli.target import find_target, pairs
from aiostream_ds.testing.grafana import Grafana, open_grafana

__all__ = ["Opened", "open_target", "run_loop"]


class Opened(NamedTuple):
    """What a command works on: a class and the settings on the line."""

    target: Target
    by: str | None
    settings: dict[str, Any]
    secrets: dict[str, str]

    @property
    def catalog(self) -> Catalog:
        """The same as what a plugin is opened with."""
        return Catalog(self.target, self.by)

    @asynccontextmanager
    async def grafana(self) -> AsyncGenerator[Grafana]:
        """The plugin, and a Grafana in memory before it."""
        async with background_tasks() as tasks, open_application(self.catalog) as application:
            tasks.start_soon(watch_loop)
            async with open_grafana(
                application, settings=self.settings, secrets=self.secrets, uid="local"
            ) as grafana:
                yield grafana


def open_target(file: str | None, parsed: argparse.Namespace) -> Opened:
    """The class of the file and the settings of the line; logs go to the terminal from now on.

    Raises CommandError.
    """
    target, by = find_target(file)
    telemetry.configure(text=True)
    return Opened(target, by, pairs(parsed.settings), pairs(parsed.secret, plain=True))


def run_loop(function: Callable[[], Awaitable[None]]) -> None:
    """Run an async function to its end, on uvloop where that exists."""
    anyio.run(function, backend_options={"use_uvloop": find_spec("uvloop") is not None})
