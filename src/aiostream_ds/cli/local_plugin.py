"""A plugin in this process, with the settings of the command line."""

import argparse
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import anyio
import msgspec

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana.application import background_tasks, open_application
from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._process.stdio import redact_output
from aiostream_ds._process.watchdog import watch_loop
from aiostream_ds._routing.plan import split_exact
from aiostream_ds.cli.live import StatusOf, StreamStatus
from aiostream_ds.cli.setting_names import check_names
from aiostream_ds.cli.target import CommandError, find_target, parse_pairs
from aiostream_ds.errors import NotFound
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

    def path(self, text: str) -> str:
        """The path for a text of the command line: values may be unencoded, as `home/+/temp`, and
        fields at the end that have defaults may be left out. That of an exact channel and "" are
        returned as they are.

        Raises:
            CommandError: no stream has such a path.
        """
        plan = self.catalog.pick(msgspec.json.encode(self.settings))._ds_plan
        path = plan.spell(text)
        if path and not split_exact(path)[0]:
            try:
                plan.match(path)
            except NotFound as error:
                raise CommandError(error.message) from None
        return path

    @asynccontextmanager
    async def grafana(self) -> AsyncGenerator[tuple[Grafana, StatusOf]]:
        """Run the plugin with an in-memory Grafana; also yields what `show` takes."""
        async with background_tasks() as tasks, open_application(self.catalog) as application:
            tasks.start_soon(watch_loop)
            async with open_grafana(
                application, settings=self.settings, secrets=self.secrets, uid="local"
            ) as grafana:
                yield grafana, partial(_status, application.registry)


def _status(registry: ChannelRegistry, path: str) -> StreamStatus:
    """The status of a path's stream, but that it reconnects: the log has it with the error."""
    for channel in registry.channels:
        status = channel.statuses.current_with_rows
        if channel.key.path == path and status:
            return StreamStatus(status.text, "refused" in channel.statuses.causes)
    return StreamStatus()


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
