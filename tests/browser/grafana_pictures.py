"""Takes the pictures of Grafana's pages in docs/img: `scripts/pictures --grafana` calls it.

`python -m tests.browser.grafana_pictures PACKAGE`: the folder of the packaged built-in plugin.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from .conftest import FLAGS, chromium
from .whole_grafana import LOGIN, PLUGIN_ID, WholeGrafana, open_grafana

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs/img"
DASHBOARDS = ROOT / "builtin/provisioning/dashboards/aiostream"

HISTORY = 75
"""Seconds of rows in the picture of a dashboard."""


class Camera:
    """A browser's tab of a Grafana with data sources and dashboards."""

    def __init__(self, tab: Any, url: str) -> None:
        self._tab = tab
        self._url = url

    async def open(self, path: str, width: int, height: int) -> Any:
        """The tab with the page at this path."""
        await self._tab.set_viewport_size({"width": width, "height": height})
        await self._tab.goto(self._url + path)
        return self._tab

    async def take(self, name: str) -> None:
        """Write what the tab shows."""
        await self._tab.mouse.move(0, 0)
        await self._tab.wait_for_timeout(1_000)  # fonts, icons, a tooltip that fades
        await self._tab.screenshot(path=IMAGES / f"{name}.png")


async def add_content(grafana: WholeGrafana) -> None:
    """The data sources and dashboards that the built-in plugin's provisioning files would make."""
    for name in ("demo", "host"):
        source = {"name": f"aiostream {name}", "uid": f"aiostream-{name}", "type": PLUGIN_ID}
        settings = {"access": "proxy", "jsonData": {"source": name}}
        await grafana.call("POST", "/api/datasources", source | settings)
        dashboard = json.loads((DASHBOARDS / f"{name}.json").read_text())
        await grafana.call("POST", "/api/dashboards/db", {"dashboard": dashboard})


async def take_all(camera: Camera) -> None:
    """The pictures of docs/install.md, docs/configure.md, docs/frontend.md and README.md."""
    tab = await camera.open("/connections/datasources/new", 1100, 330)
    await tab.get_by_placeholder("Filter by name or type").fill("aiostream")
    await tab.get_by_text("Unsigned", exact=True).wait_for()
    await camera.take("install")

    tab = await camera.open("/connections/datasources/edit/aiostream-host", 1000, 760)
    await tab.get_by_role("button", name="Save & test").click()
    await tab.get_by_text("interfaces:").wait_for()
    await camera.take("configure")

    tab = await camera.open("/d/aiostream-host?from=now-2m&to=now", 1100, 760)
    await tab.locator("canvas").first.wait_for()
    await asyncio.sleep(HISTORY)
    await camera.take("dashboard")

    tab = await camera.open("/d/aiostream-demo?editPanel=2", 1100, 796)
    await tab.get_by_label("Query type", exact=True).first.wait_for()
    await tab.get_by_role("button", name="seed 3", exact=True).wait_for()
    await camera.take("editor")


async def main(package: Path) -> None:
    """Take the pictures of a Grafana that is started for them."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_grafana(package, Path(folder)) as grafana, async_playwright() as playwright:
            await add_content(grafana)
            browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            context = await browser.new_context(color_scheme="dark")
            answer = await context.request.post(f"{grafana.url}/login", data=LOGIN)
            assert answer.ok, await answer.text()
            await take_all(Camera(await context.new_page(), grafana.url))
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).resolve()))
