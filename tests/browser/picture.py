"""Draws docs/img/notices.png. After `scripts/browser`: `python -m tests.browser.picture`."""

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from tests.conformance.driver import build_program

from .conftest import FLAGS, HERE, chromium
from .counting import counting
from .stage import Stage, last, open_stage

OUT = HERE.parents[1] / "docs/img/notices.png"


async def main() -> None:
    """Take a picture of two panels after a restart of the plugin, while the socket is refused."""
    with tempfile.TemporaryDirectory() as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            binary = build_program("host")
            page = HERE / "page/dist/12.4.10"
            async with open_stage(
                binary, page, browser, Path(folder), plugin=counting("inferred")
            ) as stage:
                await draw(stage)
            await browser.close()


async def draw(stage: Stage) -> None:
    tab = await stage.tab()
    await tab.page.set_viewport_size({"width": 690, "height": 590})
    options = {"raw": last(20), "draw": "level"}
    await stage.open_queries(tab, "Level", options, {})
    await stage.open_queries(tab, "Level, at most 200 points", {**options, "points": 200}, {})
    await asyncio.sleep(8)
    await stage.server.kill()
    await asyncio.sleep(6)
    await stage.server.wire.cut(http=False)
    await asyncio.sleep(6)
    await tab.page.screenshot(path=OUT)


if __name__ == "__main__":
    asyncio.run(main())
