"""Tabs of a browser before a Grafana, panels in them, and a judge of all that they were given."""

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
from tests.exact.upstream import FILE, LogFile, logs_in, upstream

from .grafana import Server, open_server

Message = dict[str, Any]
PATIENCE = 20.0  # seconds in which a panel is to have all rows
EARLIER = 1_000  # ms; a frame was made for a range that began so much earlier at most


class Tab:
    """One browser tab with the page that plays Grafana's frontend."""

    def __init__(self, page: Page, server: Server, context: BrowserContext) -> None:
        self.page, self.server, self.context = page, server, context
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def load(self) -> Message:
        """Opens the page, and the plugin's module in it."""
        await self.page.goto(f"{self.server.url}/page/index.html")
        loaded: Message = await self.call("load")
        return loaded

    async def call(self, name: str, *arguments: Any) -> Any:
        return await self.page.evaluate(
            "([name, given]) => window.stage[name](...given)", [name, list(arguments)]
        )

    async def until(
        self, name: str, holds: Callable[[Message], bool], patience: float = PATIENCE
    ) -> Message:
        """The panel's latest record, once that holds."""
        record: Message | None = None
        try:
            with anyio.fail_after(patience):
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
        """A refresh, or another range."""
        await self.tab.call("run", self.name, {"raw": last(width)} if width else {})

    async def close(self) -> None:
        await self.tab.call("close", self.name)


class Stage:
    """One Grafana, its two logs, and all that is drawn of them."""

    def __init__(self, browser: Browser, server: Server, logs: list[LogFile], ask: Message) -> None:
        self.browser, self.server, self.logs, self.ask = browser, server, logs, ask
        self.panels: list[Panel] = []
        self.tally = Tally()
        self.short = 0  # rows at the left edge of a range that were not drawn
        self.wrong: list[str] = []
        self.notices: set[str] = set()
        self.changes = 0
        self._contexts: list[BrowserContext] = []
        self._upstream = AsyncExitStack()

    async def start_upstream(self, folder: Path, before: float) -> None:
        await self._upstream.enter_async_context(upstream(folder, before=before))

    async def silence(self) -> None:
        """From now on nothing is written."""
        await self._upstream.aclose()

    async def show(self, log: int) -> None:
        """An admin saves the settings: of the same log, or of the other one."""
        self.changes += 1
        await self.server.change_settings(FILE.settings(str(self.logs[log].path), self.changes))

    async def tab(self, context: BrowserContext | None = None) -> Tab:
        """Another viewer, or another tab of a viewer's."""
        if context is None:
            context = await self.browser.new_context()
            self._contexts.append(context)
        tab = Tab(await context.new_page(), self.server, context)
        await tab.load()
        return tab

    async def open(self, tab: Tab, name: str, width: float, **fields: Any) -> Panel:
        await self.ask_for(tab, name, {"raw": last(width)}, fields)
        panel = Panel(tab, name)
        self.panels.append(panel)
        return panel

    async def ask_for(self, tab: Tab, name: str, options: Message, *targets: Message) -> None:
        """A panel of other options, or of several queries; `datasource` names more than one."""
        asked = [
            {"refId": chr(65 + number), "exact": True, **self.ask, **target}
            for number, target in enumerate(targets)
        ]
        uids = [each["datasource"]["uid"] for each in asked if "datasource" in each]
        await tab.call("open", name, uids or ["exact"], {**options, "targets": asked})

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()
        await self.silence()

    # -- judging -------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Judges all that was drawn since the last time."""
        records = [
            (name, record)
            for tab, name in self.panels
            for record in await tab.call("records", name)
        ]
        for log in self.logs:  # now, so that it has all that was drawn
            log.read()
        for name, record in records:
            self._judge(name, record)

    async def caught_up(self, log: int = 0) -> None:
        """Until every panel has drawn what the log had when this was called."""
        last = self.logs[log].read().numbers[-1]
        path = str(self.logs[log].path)

        def has(record: Message) -> bool:
            return any(run["log"] == path and run["last"] >= last for run in record["runs"])

        for panel in self.panels:
            await panel.tab.until(panel.name, has)

    async def verdict(self) -> Tally:
        """The sum over all frames; fails with the first that are wrong."""
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
        shown = [
            n if run["log"] == runs[-1]["log"] else -1
            for run in runs
            for n in range(run["first"], run["last"] + 1)
        ]
        # a frame is given a moment after its left edge was found
        edge, earlier = record["from"], record["from"] - EARLIER
        wanted = [n for n in log.numbers if log.times[n - 1] >= edge and n <= shown[-1]]
        drawn = [n for n in shown if n < 1 or not earlier <= log.times[n - 1] < edge]
        found = compare(drawn, wanted)
        self.tally += found
        self.short += len([n for n in wanted if drawn and n < drawn[0]])
        if not found.exact:
            about = f"{shown[:3]}…{shown[-3:]} instead of {wanted[:3]}…{wanted[-3:]}"
            self.wrong.append(f"panel {name}: {found}: {about}")


def last(width: float) -> Message:
    """A range of so many seconds that ends now."""
    return {"from": f"now-{round(width)}s", "to": "now"}


def _plugin(folder: Path) -> Path:
    """The plugin's directory, as far as browsers read it."""
    directory = folder / "plugin"
    directory.mkdir(parents=True)
    shutil.copy(static("module.js"), directory)
    (directory / "schema.json").write_text(json.dumps(describe(Catalog(File))))
    return directory


@asynccontextmanager
async def open_stage(
    binary: Path, page: Path, browser: Browser, folder: Path, before: float = 6.0
) -> AsyncIterator[Stage]:
    """Two logs that grow by 50 rows a second, the source `file` under the Go host, no tab yet."""
    async with AsyncExitStack() as stack:
        logs = [LogFile(path) for path in logs_in(folder)]
        settings = FILE.settings(str(logs[0].path))
        server = await stack.enter_async_context(
            open_server(binary, FILE.command, settings, page, _plugin(folder))
        )
        stage = Stage(browser, server, logs, FILE.ask)
        stack.push_async_callback(stage.close)
        await stage.start_upstream(folder, before)
        yield stage
