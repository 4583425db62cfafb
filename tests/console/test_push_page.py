"""From one command to a live panel with history, in a browser: push_page.mjs."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.push.console_process import ConsoleProcess

from ..requirements import require

pytestmark = [pytest.mark.browser, pytest.mark.timeout(320)]

SCRIPT = Path(__file__).with_name("push_page.mjs")
PLAYWRIGHT = SCRIPT.parents[2] / "frontend/node_modules/playwright-core"


def test_the_command_of_the_page_draws_a_panel_that_keeps_its_history():
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    require("browser", shutil.which("node") is not None, "Node is not installed")
    require("browser", PLAYWRIGHT.is_dir(), "the frontend's packages are not installed")
    require("browser", chromium is not None, "Chromium is not installed")
    with ConsoleProcess() as console:
        run = subprocess.run(
            ["node", SCRIPT, console.url],
            env={**os.environ, "CHROMIUM": str(chromium)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert run.returncode == 0, run.stderr
        command = f"curl {console.url}/push/lab/run-1 -d '{{\"loss\": 0.1}}'"
        assert json.loads(run.stdout) == {"command": command, "panels": 1}
        assert command in console.printed  # the same one is in the terminal
