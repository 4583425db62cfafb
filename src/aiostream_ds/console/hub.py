"""What all pages share: the plugin, a Grafana in memory, channel statistics and the log."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import msgspec

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds._loggers import add_handler, remove_handler
from aiostream_ds._routing.plan import Plan, split_exact
from aiostream_ds.console.channel_stats import ChannelStats
from aiostream_ds.console.log_buffer import LogBuffer
from aiostream_ds.console.page_queue import PageQueue
from aiostream_ds.console.reloadable_plugin import ReloadablePlugin, open_reloadable_plugin
from aiostream_ds.errors import NotFound
from aiostream_ds.testing.grafana import Grafana, open_grafana

__all__ = ["UID", "Hub", "open_hub"]

MAX_PUSHED = 100
"""Pushed paths that pages are sent: they open a panel for the first ones."""

UID = "local"
"""The uid of the console's data source."""


class Hub:
    """State shared by all pages. Made by `open_hub`.

    Attributes:
        settings, secrets: the data source's jsonData and secureJsonData.
        title: the name that pages show.
        first_path: the path that a page follows when it opens, or several, as `walk/10/{1..6}`; ""
            for none.
        forms: the schema of settings and queries, as JSON.
        reload: the outcome of the last reload.
        pages: the queue of each open page.
        pushed: the paths of channels with rows that programs have pushed to the console, in order.
    """

    def __init__(
        self,
        plugin: ReloadablePlugin,
        grafana: Grafana,
        stats: ChannelStats,
        *,
        settings: Mapping[str, Any],
        secrets: Mapping[str, str],
        title: str,
        first_path: str,
    ) -> None:
        self.plugin = plugin
        self.grafana = grafana
        self.stats = stats
        self.settings = dict(settings)
        self.secrets = dict(secrets)
        self.title = title
        self.first_path = first_path
        self.reload: dict[str, Any] = {"count": 0, "seconds": 0.0, "error": ""}
        self.forms = msgspec.Raw(b"{}")
        self.pages: set[PageQueue] = set()
        self.pushed: list[str] = []
        self.log = LogBuffer(self._on_line)

    def hello(self) -> dict[str, Any]:
        """The first message to a page, sent again after each reload."""
        return {
            "hello": {
                "title": self.title,
                "uid": UID,
                "forms": self.forms,
                "settings": self.settings,
                "secrets": sorted(name for name, value in self.secrets.items() if value),
                "path": self.first_path,
                "push": self.takes_pushes,
            }
        }

    def state(self, queue: PageQueue) -> dict[str, Any]:
        """The message that a page gets each second."""
        return {
            "state": {
                "channels": self.stats.channels(),
                "totals": self.stats.totals(),
                "pages": len(self.pages),
                "page_dropped": queue.dropped,
            }
        }

    def path_for(self, text: str) -> str:
        """The path for a text that a person wrote in the page, as `Plan.spell` reads it."""
        return self._plan.spell(text)

    def query_for(self, path: str) -> dict[str, Any]:
        """Return the query whose channel has this path. Raises NotFound if no stream matches."""
        return self._plan.query_of(self.path_for(split_exact(path)[1]))

    @property
    def takes_pushes(self) -> bool:
        """Whether programs can push rows to the data source: it has a resource `push/PATH`."""
        try:
            return self._plan.resource("POST", "push/path") is not None
        except NotFound:
            return True  # it has one, for other paths

    def note_push(self, path: str) -> None:
        """A program has pushed rows to this path: pages follow the channel, if it is a new one."""
        channel = next((each for each in (f"rows/{path}", path) if self._has_stream(each)), "")
        if channel and channel not in self.pushed and len(self.pushed) < MAX_PUSHED:
            self.pushed.append(channel)
            self.broadcast({"pushed": [channel]})

    def _has_stream(self, path: str) -> bool:
        try:
            self._plan.match(path)
        except NotFound:
            return False
        return True

    @property
    def _plan(self) -> Plan:
        return self.plugin.catalog.pick(msgspec.json.encode(self.settings))._ds_plan

    async def save(self, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        """Save the data source as an admin does. Secrets that are left out keep their value."""
        self.settings = dict(settings)
        self.secrets = {**self.secrets, **secrets}
        await self.grafana.change_settings(self.settings, self.secrets)
        self.broadcast(self.hello())

    def broadcast(self, message: Any) -> None:
        """Queue a message for every page."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        for queue in tuple(self.pages):
            queue.put(body)

    async def update_forms(self) -> None:
        """Describe the current classes. Runs in a thread, since it reads source files."""
        document = await anyio.to_thread.run_sync(describe, self.plugin.catalog)
        self.forms = msgspec.Raw(msgspec.json.encode(document))

    async def report_reload(self, seconds: float, error: str) -> None:
        """Send the outcome of a reload to all pages. With an `error` the old code still runs."""
        count = self.reload["count"] + (not error)
        self.reload = {"count": count, "seconds": round(seconds, 3), "error": error}
        self.broadcast({"reload": self.reload})
        if not error:
            await self.update_forms()
            self.broadcast(self.hello())

    def _on_line(self, line: str, path: str, error: str) -> None:
        def deliver() -> None:
            if path and error:
                self.stats.set_error(path, error)
            for queue in tuple(self.pages):
                queue.put_log_line(line)

        self.plugin.call_soon(deliver)


@asynccontextmanager
async def open_hub(
    catalog: Catalog,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    title: str = "",
    first_path: str = "",
) -> AsyncGenerator[Hub]:
    """Open a plugin with this code, and a Grafana in memory that all pages share.

    The arguments are the attributes of `Hub`.
    """
    settings, secrets = settings or {}, secrets or {}
    stats = ChannelStats()
    async with (
        open_reloadable_plugin(catalog, stats.attach) as plugin,
        open_grafana(plugin, settings=settings, secrets=secrets, uid=UID) as grafana,
    ):
        hub = Hub(
            plugin,
            grafana,
            stats,
            settings=settings,
            secrets=secrets,
            title=title,
            first_path=first_path,
        )
        await hub.update_forms()
        add_handler(hub.log)
        try:
            yield hub
        finally:
            remove_handler(hub.log)
