"""CI fails for each prerequisite of a test that is missing there, instead of skipping the test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_IN_CI = {"grafana", "helm"}  # whole programs that CI does not install


def named_in_tests() -> set[str]:
    """The names that tests require as text."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    return {name for text in texts for name in re.findall(r'\brequire\(\s*"([\w-]+)"', text)}


def listed(path: str) -> set[str]:
    found = re.search(r"AIOSTREAM_DS_REQUIRE=([\w,-]+)", (ROOT / path).read_text())
    assert found is not None
    return set(found[1].split(","))


@pytest.mark.slow
def test_ci_requires_what_the_tests_name():
    found = named_in_tests()
    assert {"go", "cc", "browser"} <= found
    assert found - NOT_IN_CI <= listed(".ci/run")


def test_the_documentation_lists_what_can_be_required():
    assert listed("docs/dev.md") == listed(".ci/run") | NOT_IN_CI
