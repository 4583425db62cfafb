"""The comparison of the outage run finds every kind of wrong row."""

import pytest

from .outage_run import Outcome, compare


def test_equal_numbers_are_exact():
    assert compare([1, 2, 3], [1, 2, 3]) == Outcome(3, 3, 0, 0, 0, 0, [])
    assert compare([1, 2, 3], [1, 2, 3]).is_exact


@pytest.mark.parametrize(
    ("received", "field", "count"),
    [
        ([1, 3], "lost", 1),
        ([1, 2, 2, 3], "doubled", 1),
        ([1, 3, 2], "out_of_order", 1),
        ([1, 2, 3, 9], "unknown", 1),
        ([1, 2, 3, 2, 3], "doubled", 2),
    ],
)
def test_each_fault_is_counted(received: list[int], field: str, count: int):
    outcome = compare([1, 2, 3], received)
    assert getattr(outcome, field) == count and not outcome.is_exact


def test_a_run_without_rows_is_not_exact():
    assert not compare([], []).is_exact


def test_gaps_are_ranges_of_written_numbers():
    written = [1, 2, 3, 7, 8, 9, 10]
    assert compare(written, [1, 9]).gaps == [(2, 8), (10, 10)]
