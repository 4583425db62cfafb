"""A browser, the page in place of Grafana's frontend, and the module as it is shipped."""

import os
import shutil
from collections.abc import AsyncIterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance.conftest import (  # noqa: F401
    go_program,
    host_binary,
    packaged,
    pytest_collection_finish,
)

from ..requirements import require

HERE = Path(__file__).parent
VERSION = os.environ.get("AIOSTREAM_DS_GRAFANA", "12.4.10")
"""The version of Grafana's packages in the page."""

stock = pytest.mark.skipif(
    VERSION.startswith("9."),
    reason="@grafana/data 9.4 has no StreamingDataFrame: the page has no stock panels",
)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

collect_ignore_glob = [] if find_spec("playwright") and find_spec("aiohttp") else ["test_p*.py"]
"""Without these packages no test here can be imported; test_needs.py reports that."""


def chromium() -> str | None:
    """The executable, or None."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@pytest.fixture(scope="session")
def nothing_left() -> None:
    """No check here: the browser's driver runs during all tests."""


@pytest.fixture(scope="session")
def page() -> Path:
    """The page with the packages of a version of Grafana, built by `scripts/browser VERSION`."""
    return built(VERSION)


def built(name: str) -> Path:
    """The folder of a page; its name is a version of Grafana's packages."""
    found = HERE / "page/dist" / name
    require("browser", (found / "page.js").exists(), "the test page is not built: scripts/browser")
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    executable = chromium()
    require("browser", executable is not None, "Chromium is not installed: scripts/browser")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield found
        await found.close()


SCENES = {
    "12.4.10": ("12.4.10",),
    "13.0.2": ("13.0.2",),
    "13.2.3": ("13.2.3", "13.2.3-scenes-9"),
}
"""Pages with dashboards of @grafana/scenes: 6.52.11, 7.4.2, 8.19.0 and 9.2.2."""

OPENED = SCENES.get(
    os.environ.get("AIOSTREAM_DS_GRAFANA", ""), (*SCENES["12.4.10"], *SCENES["13.2.3"])
)


@pytest.fixture(params=OPENED)
def open_scenes(host_binary: Path, browser: Any, tmp_path: Path, request: Any) -> Any:  # noqa: F811
    """Open a stage whose page has dashboards of @grafana/scenes."""
    from .stage import open_stage

    return partial(open_stage, host_binary, built(request.param), browser, folder=tmp_path)


@pytest.fixture
def open_stage(host_binary: Path, page: Path, browser: Any, tmp_path: Path) -> Any:  # noqa: F811
    """Open a stage: `async with open_stage() as stage`."""
    from .stage import open_stage

    return partial(open_stage, host_binary, page, browser, folder=tmp_path)
