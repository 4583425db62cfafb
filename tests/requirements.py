"""What a test needs from the machine: missing, it skips, or fails where CI insists.

``AIOSTREAM_DS_REQUIRE=go,redis`` names the needs whose absence is a failure, so that a run cannot
go green by skipping.
"""

import os

import pytest

REQUIRE_VARIABLE = "AIOSTREAM_DS_REQUIRE"


def required() -> frozenset[str]:
    """The needs that this run insists on."""
    names = os.environ.get(REQUIRE_VARIABLE, "").split(",")
    return frozenset(name.strip() for name in names if name.strip())


def require(name: str, condition: bool, reason: str) -> None:
    """Go on when the condition holds; else skip the test, or fail it when ``name`` is required."""
    if condition:
        return
    if name in required():
        pytest.fail(f"{reason} ({REQUIRE_VARIABLE} names {name!r})", pytrace=False)
    pytest.skip(reason)
