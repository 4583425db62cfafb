"""Browser tabs with a Grafana, panels in them, and a judge of all frames that they get."""

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from playwright.async_api import Browser, BrowserContext, Page

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe, static
from aiostream_ds.sources.file.file_source import File
from tests.exact.judge import Tally, compare
from tests.exact.upstream import FILE, LogFile, Plugin, logs_in, upstream

from .grafana import Server, open_server

Message = dict[str, Any]
TIMEOUT = 45.0  # seconds in which a panel must have all rows
EARLIER = 3_000  # ms; the range of a frame began at most this much earlier


class Tab:
    """One browser tab with the page in place of Grafana's frontend."""

    def __init__(self, page: Page, server: Server, context: BrowserContext) -> None:
        self.page, self.server, self.context = page, server, context
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def load(self, sandboxed: bool = False) -> Message:
        """Open the page and load the plugin's module; `sandboxed`: in the frontend sandbox."""
        await self.page.goto(f"{self.server.url}/page/index.html")
        loaded: Message = await self.call("load", sandboxed)
        return loaded

    async def call(self, name: str, *arguments: Any) -> Any:
        return await self.page.evaluate(
            "([name, given]) => window.stage[name](...given)", [name, list(arguments)]
        )

    async def until(
        self, name: str, holds: Callable[[Message], bool], timeout: float = TIMEOUT
    ) -> Message:
        """Wait until the panel's latest record satisfies a condition; returns it."""
        record: Message | None = None
        try:
            with anyio.fail_after(timeout):
                while True:
                    record = (await self.call("summary", name))["latest"]
                    if record is not None and holds(record):
                        return record
                    await anyio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"panel {name}: still {record}") from None


class Panel(NamedTuple):
    """A panel of the last `width` seconds."""

    tab: Tab
    name: str

    async def run(self, width: float | None = None) -> None:
        """Refresh the panel, or change its range."""
        await self.tab.call("run", self.name, {"raw": last(width)} if width else {})

    async def close(self) -> None:
        await self.tab.call("close", self.name)


class Stage:
    """One Grafana, its two logs, and the judge of all drawings."""

    def __init__(
        self, browser: Browser, server: Server, logs: list[LogFile], plugin: Plugin
    ) -> None:
        self.browser, self.server, self.logs, self.plugin = browser, server, logs, plugin
        self.panels: list[Panel] = []
        self.tally = Tally()
        self.short = 0  # rows at the left edge of a range that are missing
        self.wrong: list[str] = []
        self.notices: set[str] = set()
        self.changes = 0
        self._contexts: list[BrowserContext] = []
        self._upstream = AsyncExitStack()

    async def start_upstream(self, folder: Path, before: float) -> None:
        await self._upstream.enter_async_context(upstream(folder, before=before))

    async def stop_upstream(self) -> None:
        """Write no more rows."""
        await self._upstream.aclose()

    async def show(self, log: int) -> None:
        """Change the settings: to the same log, or to the other one."""
        self.changes += 1
        settings = self.plugin.settings(str(self.logs[log].path), self.changes)
        await self.server.change_settings(settings)

    async def tab(self, context: BrowserContext | None = None, sandboxed: bool = False) -> Tab:
        """Open a tab of a new viewer, or of the viewer with this context."""
        if context is None:
            context = await self.browser.new_context()
            self._contexts.append(context)
        tab = Tab(await context.new_page(), self.server, context)
        await tab.load(sandboxed)
        return tab

    async def open(self, tab: Tab, name: str, width: float, **fields: Any) -> Panel:
        await self.open_queries(tab, name, {"raw": last(width)}, fields)
        panel = Panel(tab, name)
        self.panels.append(panel)
        return panel

    async def open_queries(self, tab: Tab, name: str, options: Message, *targets: Message) -> None:
        """Open a panel with options and several queries; `datasource` may name several sources."""
        queries = [
            {"refId": chr(65 + number), "exact": True, **self.plugin.query, **target}
            for number, target in enumerate(targets)
        ]
        uids = [each["datasource"]["uid"] for each in queries if "datasource" in each]
        await tab.call("open", name, uids or ["exact"], {**options, "targets": queries})

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()
        await self.stop_upstream()

    # -- judging -------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Judge all drawings since the last call."""
        records = [
            (name, record)
            for tab, name in self.panels
            for record in await tab.call("records", name)
        ]
        for log in self.logs:  # after the drawings, so that it has all their rows
            log.read()
        for name, record in records:
            self._judge(name, record)

    async def caught_up(self, log: int = 0) -> None:
        """Wait until every panel has drawn the rows that the log has now."""
        last = self.logs[log].read().numbers[-1]
        path = str(self.logs[log].path)

        def has(record: Message) -> bool:
            return any(run["log"] == path and run["last"] >= last for run in record["runs"])

        for panel in self.panels:
            await panel.tab.until(panel.name, has)

    async def verdict(self) -> Tally:
        """The tally of all frames; fails with the first wrong ones."""
        await self.collect()
        assert not self.wrong, self.wrong[:3]
        errors = [error for tab, _ in self.panels for error in tab.errors]
        assert not errors, errors
        return self.tally

    def _judge(self, name: str, record: Message) -> None:
        self.notices.update(record["notices"])
        if not record["runs"]:
            return
        runs = record["runs"]
        (log,) = [log for log in self.logs if str(log.path) == runs[-1]["log"]]
        numbers = [
            n if run["log"] == runs[-1]["log"] else -1
            for run in runs
            for n in range(run["first"], run["last"] + 1)
        ]
        # the panel gets a frame a moment after its left edge was computed
        edge, earlier = record["from"], record["from"] - EARLIER
        expected = [n for n in log.numbers if log.times[n - 1] >= edge and n <= numbers[-1]]
        drawn = [n for n in numbers if n < 1 or not earlier <= log.times[n - 1] < edge]
        found = compare(drawn, expected)
        self.tally += found
        self.short += len([n for n in expected if drawn and n < drawn[0]])
        if not found.exact:
            about = f"{numbers[:3]}…{numbers[-3:]}, expected {expected[:3]}…{expected[-3:]}"
            self.wrong.append(f"panel {name}: {found}: {about}")


def last(width: float) -> Message:
    """A range of this many seconds that ends now."""
    return {"from": f"now-{round(width)}s", "to": "now"}


def _plugin(folder: Path) -> Path:
    """The files of the plugin's directory that browsers read."""
    directory = folder / "plugin"
    directory.mkdir(parents=True)
    shutil.copy(static("module.js"), directory)
    (directory / "schema.json").write_text(json.dumps(describe(Catalog(File))))
    return directory


@asynccontextmanager
async def open_stage(
    binary: Path,
    page: Path,
    browser: Browser,
    folder: Path,
    before: float = 6.0,
    plugin: Plugin = FILE,
) -> AsyncIterator[Stage]:
    """Two logs that grow by 50 rows a second, and a plugin under the Go host; no tab."""
    async with AsyncExitStack() as stack:
        logs = [LogFile(path) for path in logs_in(folder)]
        settings = plugin.settings(str(logs[0].path))
        server = await stack.enter_async_context(
            open_server(binary, plugin.command, settings, page, _plugin(folder))
        )
        stage = Stage(browser, server, logs, plugin)
        stack.push_async_callback(stage.close)
        await stage.start_upstream(folder, before)
        yield stage
