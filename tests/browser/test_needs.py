"""What the tests in a browser need."""

from importlib.util import find_spec

import pytest

from ..requirements import require

pytestmark = pytest.mark.browser


def test_the_packages_that_drive_a_browser_are_there():
    missing = [name for name in ("playwright", "aiohttp") if find_spec(name) is None]
    require("browser", not missing, f"not installed: {', '.join(missing)}; run scripts/browser")
