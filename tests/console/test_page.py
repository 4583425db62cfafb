"""The console's page in a browser: page.mjs uses each control."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..requirements import require

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPT = HERE / "page.mjs"
STEPS = re.findall(r'^await step\("([^"]+)"', SCRIPT.read_text("utf-8"), re.M)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1000)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of page.mjs, run once."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    playwright = ROOT / "frontend/node_modules/playwright-core"
    require("browser", shutil.which("node") is not None, "Node is not installed")
    require("browser", playwright.is_dir(), "the frontend's packages are not installed")
    require("browser", chromium is not None, "Chromium is not installed")
    arguments = ["dev", "--set", "source=host", "--path", "cpu", "--port", "0", "--no-browser"]
    main = "import sys; from aiostream_ds.cli import main; sys.exit(main())"
    folder = tmp_path_factory.mktemp("console")  # in the checkout, other tests would attach to it
    out = (folder / "out.txt").open("w+")
    command = [sys.executable, "-uc", main, *arguments]
    dev = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, cwd=folder)
    try:
        url = re.search(r"http://\S+", dev.stdout.readline().decode())[0]
        arguments = ["node", SCRIPT, url, os.environ.get("AIOSTREAM_DS_PICTURES", "")]
        environ = {**os.environ, "CHROMIUM": str(chromium)}
        run = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=900)
        assert run.returncode == 0, run.stderr
        yield json.loads(run.stdout)
    finally:
        dev.terminate()
        dev.wait(60)  # it ends a thousand streams
        dev.stdout.close()
        out.close()


def test_every_control_works_without_browser_errors(report):
    assert set(report["steps"]) == set(STEPS)
    assert {name: error for name, error in report["steps"].items() if error} == {}
    assert report["errors"] == []
