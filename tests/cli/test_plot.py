"""Plots of Braille characters."""

import re
from math import inf, nan

import pytest

from aiostream_ds import Field, FieldConfig, FieldType
from aiostream_ds.cli.plot import Plot, chart

PLAIN = re.compile("\x1b\\[[0-9;]*[A-Za-z]")


def dots(lines):
    return "".join(line for _, line in lines)


def test_rising_values_go_from_bottom_left_to_top_right():
    (top, upper), (bottom, lower) = chart([0, 1, 2, 3, 4, 5, 6, 7], width=4, height=2)
    assert (top, bottom) == ("7", "0")
    assert lower[:2] != "⠀⠀" and lower[3] == "⠀"
    assert upper[3] != "⠀" and upper[:2] == "⠀⠀"


def test_the_newest_value_is_at_the_right():
    (_, line), *_ = chart([1.0], width=10, height=2)
    lines = chart([1.0], width=10, height=2)
    assert {index for _, text in lines for index, dot in enumerate(text) if dot != "⠀"} == {9}
    assert len(line) == 10


@pytest.mark.parametrize("values", [[], [nan], [inf, -inf]])
def test_without_a_number_nothing_is_drawn(values):
    assert set(dots(chart(values, width=5, height=3))) == {"⠀"}


def test_a_missing_value_is_a_gap():
    complete = dots(chart([1, 1, 1, 1, 1, 1], width=3, height=1))
    gap = dots(chart([1, 1, nan, nan, 1, 1], width=3, height=1))
    assert complete[1] != "⠀" and gap[1] == "⠀" and gap[0] == complete[0]


def test_equal_values_are_in_the_middle():
    lines = chart([5.0] * 8, width=4, height=3)
    assert [set(text) != {"⠀"} for _, text in lines] == [False, True, False]


def test_times_and_strings_are_not_drawn_and_the_next_plot_replaces_the_last(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "24")
    fields = [Field("time", [1], FieldType.TIME), Field("v", [1.0]), Field("name", ["x"])]
    plot = Plot(colour=False)
    plot.add(fields, {"time": 1, "v": 1.5, "name": "x"})
    first = plot.draw("title")
    plot.add(fields, {"time": 2, "v": 2.5, "name": "x"})
    second = plot.draw("title")
    lines = PLAIN.sub("", first).splitlines()
    assert lines[0] == "title" and lines[1].startswith("v  1.5") and "name" not in first
    assert all(len(line) <= 60 for line in lines)
    assert second.startswith(f"\x1b[{len(lines)}F")


def test_a_column_that_is_hidden_from_panels_is_not_drawn():
    config = FieldConfig(custom={"hideFrom": {"viz": True}})
    plot = Plot(colour=False)
    plot.add([Field("value", [1.0]), Field("id", [7], config=config)], {"value": 1.0, "id": 7})
    assert "id" not in plot.draw("title")
