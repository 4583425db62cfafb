"""The documentation site in a browser: three widths, dark and light, its searches."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.requirements import require

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

BUILT = Path(__file__).parents[2] / "build" / "site" / "html"
PAGES = ("index", "sources", "guarantees", "error-messages", "streams", "api/policies-of-a-stream")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Any:
    require("site", (BUILT / "index.html").is_file(), "the site is not built: scripts/site")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(BUILT))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@asynccontextmanager
async def opened(
    browser: Any, url: str, width: int = 1280, scheme: str = "light"
) -> AsyncIterator[Any]:
    """A page whose errors fail the test."""
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"{request.url} was not loaded"))
    page.on(
        "response", lambda answer: problems.append(answer.url) if answer.status >= 400 else None
    )
    await page.goto(url)
    yield page
    await page.close()
    assert problems == []


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_as_wide_as_the_window(browser, address, name, width):
    async with opened(browser, f"{address}/{name}.html", width) as page:
        excess = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert excess == 0


async def test_the_system_and_the_switch_select_dark_and_light(browser, address):
    background = "getComputedStyle(document.body).backgroundColor"
    async with opened(browser, f"{address}/index.html", scheme="dark") as page:
        dark = await page.evaluate(background)
    async with opened(browser, f"{address}/index.html") as page:
        light = await page.evaluate(background)
        assert light != dark
        for _ in range(3):  # automatic, light, dark
            await page.click(".theme-toggle-content button")
            if await page.evaluate(background) == dark:
                break
        assert await page.evaluate(background) == dark


async def test_the_search_finds_a_page(browser, address):
    async with opened(browser, f"{address}/index.html") as page:
        await page.fill("input[name=q]", "keep_running")
        await page.press("input[name=q]", "Enter")
        await page.wait_for_selector("#search-results li a")
        found = await page.locator("#search-results li a").all_text_contents()
        assert any("Stored rows" in text for text in found)


async def test_a_line_of_a_log_finds_its_message(browser, address):
    async with opened(browser, f"{address}/error-messages.html") as page:
        line = 'logger=plugin.acme level=error msg="rows are not stored: database or disk is full"'
        await page.fill("textarea", line)
        best = await page.locator("tr.best:visible td:first-child").all_text_contents()
        assert best == ["rows are not stored: …"]
        await page.fill("textarea", "no such message, qwertz")
        assert await page.locator("tbody tr:visible").count() == 0
        await page.fill("textarea", "")
        assert await page.locator("tbody tr:visible").count() > 500


async def test_a_block_can_be_copied(browser, address):
    async with opened(browser, f"{address}/index.html") as page:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.locator("#a-script-a-device-or-an-agent-has-numbers .highlight").hover()
        await page.click("#a-script-a-device-or-an-agent-has-numbers button.copybtn")
        text = await page.evaluate("navigator.clipboard.readText()")
        assert text.splitlines()[0] == "aiostream-ds dev --push"
