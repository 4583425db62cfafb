"""A plugin in this process, with the settings of the command line."""

import argparse
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import anyio

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._grafana.application import background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._process.stdio import redact_output
from aiostream_ds._process.watchdog import watch_loop
from aiostream_ds.cli.setting_names import check_names
from aiostream_ds.cli.target import find_target, parse_pairs
from aiostream_ds.testing.grafana import Grafana, open_grafana

__all__ = ["LocalPlugin", "load_plugin", "run_async"]


class LocalPlugin(NamedTuple):
    """A class and its settings."""

    target: Target
    by: str | None
    settings: dict[str, Any]
    secrets: dict[str, str]

    @property
    def catalog(self) -> Catalog:
        """The catalog for `open_application`."""
        return Catalog(self.target, self.by)

    @asynccontextmanager
    async def grafana(self) -> AsyncGenerator[Grafana]:
        """Run the plugin with an in-memory Grafana."""
        async with background_tasks() as tasks, open_application(self.catalog) as application:
            tasks.start_soon(watch_loop)
            async with open_grafana(
                application, settings=self.settings, secrets=self.secrets, uid="local"
            ) as grafana:
                yield grafana


def load_plugin(file: str | None, parsed: argparse.Namespace) -> LocalPlugin:
    """Load a class with the settings of the command line; also makes logs readable text.

    Raises:
        CommandError: The class cannot be loaded, or a setting is not KEY=VALUE or unknown.
    """
    target, by = find_target(file)
    redact_output("stderr")  # stdout is for what the command prints
    telemetry.configure(text=True)
    settings, secrets = parse_pairs(parsed.settings), parse_pairs(parsed.secret, json=False)
    plugin = LocalPlugin(target, by, settings, secrets)
    check_names(plugin.catalog, settings, secrets)
    return plugin


def run_async(function: Callable[[], Awaitable[None]]) -> None:
    """Run an async function, on uvloop if it is installed."""
    anyio.run(function, backend_options={"use_uvloop": find_spec("uvloop") is not None})
