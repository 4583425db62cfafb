"""Snapshots of frames."""

from datetime import UTC, datetime

import pytest

from aiostream_ds import Field, FieldType, Frame
from aiostream_ds.testing.snapshots import FrameSnapshot, frame_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def frame(*values):
    times = Field("time", [NOON] * len(values), FieldType.TIME)
    return Frame(times, Field("v", list(values), FieldType.FLOAT64, labels={"site": "a"}))


def test_a_frame_has_one_line_per_field_and_row():
    assert frame_text(frame(1.0, 2.5)).splitlines()[1:] == [
        "  time time.Time",
        '  v float64 {"site":"a"}',
        "",
        "                         time    v",
        "2026-01-01T12:00:00.000+00:00  1.0",
        "2026-01-01T12:00:00.000+00:00  2.5",
    ]


def test_a_difference_is_shown_as_a_diff_of_lines(tmp_path):
    FrameSnapshot(tmp_path, "one", update=True)(frame(1.0, 2.0))
    compare = FrameSnapshot(tmp_path, "one", update=False)
    compare(frame(1.0, 2.0))
    with pytest.raises(AssertionError) as failed:
        compare(frame(1.0, 3.0), "one")
    lines = str(failed.value).splitlines()
    assert "-2026-01-01T12:00:00.000+00:00  2.0" in lines
    assert "+2026-01-01T12:00:00.000+00:00  3.0" in lines
    assert not any(line.endswith("1.0") and line[0] in "+-" for line in lines)


def test_a_missing_snapshot_is_a_failure_that_shows_the_frame(tmp_path):
    with pytest.raises(AssertionError, match="--update-frames\n.*frame"):
        FrameSnapshot(tmp_path, "one", update=False)(frame(1.0))
    assert not list(tmp_path.iterdir())


def test_each_frame_of_a_test_has_its_own_file(tmp_path):
    snapshot = FrameSnapshot(tmp_path, "one", update=True)
    snapshot(frame(1.0))
    snapshot(frame(2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one-2.txt", "one.txt"]
