"""Requirements of tests on the machine. A test without its requirement is skipped.

``AIOSTREAM_DS_REQUIRE=go,redis`` lists requirements whose absence is a failure, so that CI does not
skip these tests.
"""

import os

import pytest

REQUIRE_VARIABLE = "AIOSTREAM_DS_REQUIRE"


def required() -> frozenset[str]:
    """The requirements whose absence is a failure."""
    names = os.environ.get(REQUIRE_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def require(name: str, condition: bool, reason: str) -> None:
    """Skip the test unless the condition holds; fail it if ``name`` is required."""
    if condition:
        return
    if name in required():
        pytest.fail(f"{reason} ({REQUIRE_VARIABLE} names {name!r})", pytrace=False)
    pytest.skip(reason)
