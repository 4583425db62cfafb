"""Draws docs/img/notices.png. After `scripts/browser`: `python -m tests.browser.picture`."""

import asyncio
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from tests.conformance.driver import build_program

from .conftest import FLAGS, HERE, chromium
from .stage import Stage, last, open_stage

OUT = HERE.parents[1] / "docs/img/notices.png"


async def main() -> None:
    """Take a picture of two panels that poll because the socket is refused."""
    with tempfile.TemporaryDirectory() as folder:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            binary = build_program("host")
            async with open_stage(
                binary, HERE / "page/dist/12.4.10", browser, Path(folder)
            ) as stage:
                await draw(stage)
            await browser.close()


async def draw(stage: Stage) -> None:
    tab = await stage.tab()
    await tab.page.set_viewport_size({"width": 690, "height": 560})
    options = {"raw": last(20), "draw": "value"}
    await stage.open_queries(tab, "Level", options, {})
    await stage.open_queries(tab, "Level, at most 400 points", {**options, "points": 400}, {})
    await asyncio.sleep(8)
    await stage.server.wire.cut(http=False)
    await asyncio.sleep(8)
    await tab.page.screenshot(path=OUT)


if __name__ == "__main__":
    asyncio.run(main())
