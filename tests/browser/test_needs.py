"""The packages that the browser tests need."""

from importlib.util import find_spec

import pytest

from ..requirements import require

pytestmark = pytest.mark.browser


def test_the_packages_that_control_a_browser_are_installed():
    missing = [name for name in ("playwright", "aiohttp") if find_spec(name) is None]
    require("browser", not missing, f"not installed: {', '.join(missing)}; run scripts/browser")
