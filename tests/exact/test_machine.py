"""Exact streams under random sequences of rows and faults: see tests/exact/machine.py."""

import pytest

from aiostream_ds._grafana import range_reading
from tests.exact.machine import ExactStreamsMachine
from tests.histories import histories, in_parts, play

_PARTS = 4
_COUNT = -(-histories(fast=25, ci=2_000, deep=20_000) // _PARTS)


@pytest.fixture(autouse=True)
def many_pages(monkeypatch):
    """Long ranges are read in many pages."""
    monkeypatch.setattr(range_reading, "PAGE_ROWS", 10)


@pytest.mark.slow
@pytest.mark.timeout(60 + _COUNT)
@in_parts("exact streams", _PARTS)
def test_any_history_is_drawn_exactly(part):
    play(ExactStreamsMachine, _COUNT, steps=30)
