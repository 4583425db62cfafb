"""Texts of values in error messages are short, and have no rows of tables."""

import numpy as np
import pyarrow as pa
import pytest

from aiostream_ds._short_repr import short_repr


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "1.5"),
        ("text", "'text'"),
        (None, "None"),
        (pa.table({"a": [1]}), "<Table>"),
        (pa.array([1]), "<Int64Array>"),
        (np.zeros(3), "<ndarray>"),
        (np.float64(1.5), "np.float64(1.5)"),
        ({"table": [pa.table({"a": [1]})]}, "{'table': [<Table>]}"),
    ],
)
def test_values_are_shown_and_tables_are_named(value, expected):
    assert short_repr(value) == expected


@pytest.mark.parametrize("value", ["x" * 10_000, list(range(10_000)), {"x" * 999: "y" * 999}])
def test_long_values_are_shortened(value):
    assert len(short_repr(value)) < 120


def test_a_repr_that_fails_is_replaced():
    assert "Broken" in short_repr(Broken())


class Exiting:
    def __repr__(self) -> str:
        raise SystemExit


class ShapelessArray:
    __array__ = None

    @property
    def shape(self):
        raise ValueError("no shape")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10**10_000, "<int>"),
        ([1, 10**10_000], "[1, <int>]"),
        (Exiting(), "<Exiting>"),
        ([ShapelessArray()], "[<ShapelessArray>]"),
    ],
    ids=["int", "list", "exit", "array"],
)
def test_no_value_raises(value, expected):
    assert short_repr(value) == expected
