"""Exact streams under random sequences of rows and faults: see tests/exact/machine.py."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from aiostream_ds._grafana import range_reading
from tests.exact.machine import ExactStreamsMachine

_PARTS = 4  # which run in several processes at a time; each has histories of its own
_PROFILES = {"fast": 25, "ci": 2_000, "deep": 20_000}
_HISTORIES = os.environ.get("AIOSTREAM_DS_HISTORIES")
_COUNT = -(-int(_HISTORIES or _PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "fast")]) // _PARTS)


@pytest.fixture(autouse=True)
def many_pages(monkeypatch):
    """Long ranges are read in many pages."""
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 10)


@pytest.mark.slow
@pytest.mark.timeout(60 + _COUNT)
@pytest.mark.parametrize(
    "part",
    [pytest.param(n, marks=pytest.mark.xdist_group(f"exact histories {n}")) for n in range(_PARTS)],
)
def test_any_history_is_drawn_exactly(part):
    run_state_machine_as_test(
        ExactStreamsMachine,
        settings=settings(
            max_examples=_COUNT,
            stateful_step_count=30,
            deadline=None,
            derandomize=False,  # also where Hypothesis finds that it runs in CI: parts must differ
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate]
            + ([] if _HISTORIES else [Phase.shrink]),
        ),
    )
