"""A test that hangs fails alone: the tests after it on the same event loop pass."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[1]

REPORTS = """
import time


def pytest_runtest_logreport(report):
    if report.when == "call" and "is_reported_slowly" in report.nodeid:
        time.sleep(1.5)
"""

OUTCOME = re.compile(r"^(PASSED|FAILED) .*::test_(\w+)", re.M)

TESTS = """
import asyncio
import threading

import pytest

from tests import hangs

hangs._AGAIN, hangs._END = 0.5, 1.0


async def alone():
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def spin():
    while True:
        await asyncio.sleep(0)


@pytest.mark.KIND
class TestLoop:
    async def test_hangs(self):
        await asyncio.create_task(asyncio.Event().wait())

    async def test_passes_after_a_task(self):
        await alone()

    async def test_spins(self):
        def again():
            asyncio.get_running_loop().call_soon(again)

        again()
        await asyncio.Event().wait()

    async def test_passes_after_a_callback(self):
        await alone()

    async def test_is_among_busy_tasks(self):
        tasks = [asyncio.create_task(spin()) for _ in range(50)]
        await asyncio.Event().wait()

    async def test_passes_after_busy_tasks(self):
        await alone()

    async def test_blocks(self):
        threading.Thread(target=threading.Event().wait).start()
        threading.Event().wait()

    async def test_passes_after_a_block(self):
        await alone()

    async def test_is_reported_slowly(self):
        pass

    async def test_passes_after_a_report(self):
        await alone()

    async def test_fails(self):
        self.task = asyncio.create_task(asyncio.sleep(3600))
        assert False

    async def test_passes_after_a_failure(self):
        await alone()
"""


@pytest.mark.parametrize("kind", ["virtual", "slow"])
async def test_a_test_that_hangs_is_the_only_one_that_fails(tmp_path, kind):
    file = tmp_path / "test_file.py"
    file.write_text(TESTS.replace("KIND", kind), "utf-8")
    (tmp_path / "conftest.py").write_text(REPORTS, "utf-8")
    settings = tmp_path / "pytest.ini"
    settings.write_text("[pytest]\nasyncio_mode = auto\n", "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
        *("-rA", "--timeout", "1", "-c", settings, "--rootdir", tmp_path, file),
        *("-o", "asyncio_default_test_loop_scope=module"),
        *("-o", "asyncio_default_fixture_loop_scope=module"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    outcomes = {name: outcome for outcome, name in OUTCOME.findall(output)}
    assert outcomes == {
        "hangs": "FAILED",
        "passes_after_a_task": "PASSED",
        "spins": "FAILED",
        "passes_after_a_callback": "PASSED",
        "is_among_busy_tasks": "FAILED",
        "passes_after_busy_tasks": "PASSED",
        "blocks": "FAILED",
        "passes_after_a_block": "PASSED",
        "is_reported_slowly": "PASSED",
        "passes_after_a_report": "PASSED",
        "fails": "FAILED",
        "passes_after_a_failure": "PASSED",
    }, output
    assert output.count("Timeout (>1.0s) from pytest-timeout") >= 4, output
