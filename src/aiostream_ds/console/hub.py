"""What all pages share: the front, a Grafana in memory before it, what happens, and the log.

Made by `open_hub`. Pages come and go; who follows what is each page's own.
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import msgspec

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds._routing.plan import split_exact
from aiostream_ds.console.page_queue import Outbox
from aiostream_ds.console.swap import Front, open_front
from aiostream_ds.console.watch import LogTap, Watch
from aiostream_ds.testing.grafana import Grafana, open_grafana

__all__ = ["UID", "Hub", "open_hub"]

UID = "local"
"""The uid of the data source that pages see."""


class Hub:
    """The plugin as pages see it. `title` names it; `reload` is the last reload's outcome."""

    def __init__(self, front: Front, grafana: Grafana, watch: Watch, title: str) -> None:
        self.front = front
        self.grafana = grafana
        self.watch = watch
        self.title = title
        self.settings: dict[str, Any] = {}
        self.secrets: dict[str, str] = {}
        self.first_path = ""
        self.reload: dict[str, Any] = {"count": 0, "seconds": 0.0, "error": ""}
        self.forms = msgspec.Raw(b"{}")
        self.pages: set[Outbox] = set()
        self.log = LogTap(self._on_line)

    def hello(self) -> dict[str, Any]:
        """What a page is told first, and again after each reload."""
        return {
            "hello": {
                "title": self.title,
                "uid": UID,
                "forms": self.forms,
                "settings": self.settings,
                "secrets": sorted(self.secrets),
                "path": self.first_path,
            }
        }

    def state(self, outbox: Outbox) -> dict[str, Any]:
        """What a page is told each second."""
        return {
            "state": {
                "channels": self.watch.channels(),
                "totals": self.watch.totals(),
                "pages": len(self.pages),
                "page_dropped": outbox.dropped,
            }
        }

    def query_of(self, path: str) -> dict[str, Any]:
        """The query whose channel this path is. Raises NotFound for a path of no stream."""
        plan = self.front.catalog.pick(msgspec.json.encode(self.settings))._plan
        stream, arguments = plan.match(split_exact(path)[1])
        fields = msgspec.structs.fields(stream.query_type)
        found = {f.encode_name: arguments[f.name] for f in fields if f.name in arguments}
        return {"queryType": stream.name, **found}

    async def save(self, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        """An admin saves the data source; a secret that is left out stays as it is."""
        self.settings = dict(settings)
        self.secrets = {**self.secrets, **secrets}
        await self.grafana.change_settings(self.settings, self.secrets)
        self.tell(self.hello())

    def tell(self, message: Any) -> None:
        """News for every page."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        for outbox in tuple(self.pages):
            outbox.tell(body)

    async def describe(self) -> None:
        """Read the classes of now: it reads source files, so in a thread."""
        document = await anyio.to_thread.run_sync(describe, self.front.catalog)
        self.forms = msgspec.Raw(msgspec.json.encode(document))

    async def reloaded(self, seconds: float, error: str) -> None:
        """Code was exchanged, or could not be: `error` says why, and the old code goes on."""
        count = self.reload["count"] + (not error)
        self.reload = {"count": count, "seconds": round(seconds, 3), "error": error}
        self.tell({"reload": self.reload})
        if not error:
            await self.describe()
            self.tell(self.hello())

    def _on_line(self, line: str, path: str, error: str) -> None:
        def tell() -> None:
            if path and error:
                self.watch.failed(path, error)
            for outbox in tuple(self.pages):
                outbox.log(line)

        self.front.call_soon(tell)


@asynccontextmanager
async def open_hub(
    catalog: Catalog,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    title: str = "",
) -> AsyncGenerator[Hub]:
    """A plugin with this code, and a Grafana before it that pages can share."""
    watch = Watch()
    async with (
        open_front(catalog, watch.attach) as front,
        open_grafana(front, settings=settings, secrets=secrets, uid=UID) as grafana,
    ):
        hub = Hub(front, grafana, watch, title)
        hub.settings, hub.secrets = dict(settings or {}), dict(secrets or {})
        await hub.describe()
        root = logging.getLogger()
        root.addHandler(hub.log)
        try:
            yield hub
        finally:
            root.removeHandler(hub.log)
