"""Frames as text, kept beside a test."""

from datetime import UTC, datetime

import pytest

from aiostream_ds import Field, FieldType, Frame
from aiostream_ds.testing.snapshots import FrameSnapshot, frame_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def frame(*values):
    times = Field("time", [NOON] * len(values), FieldType.TIME)
    return Frame(times, Field("v", list(values), FieldType.FLOAT64, labels={"room": "a"}))


def test_a_frame_is_a_line_for_each_field_and_each_row():
    assert frame_text(frame(1.0, 2.5)).splitlines()[1:] == [
        "  time time.Time",
        '  v float64 {"room":"a"}',
        "",
        "                         time    v",
        "2026-01-01T12:00:00.000+00:00  1.0",
        "2026-01-01T12:00:00.000+00:00  2.5",
    ]


def test_a_kept_frame_is_compared_and_a_difference_is_a_diff_of_lines(tmp_path):
    FrameSnapshot(tmp_path, "one", update=True)(frame(1.0, 2.0))
    compare = FrameSnapshot(tmp_path, "one", update=False)
    compare(frame(1.0, 2.0))
    with pytest.raises(AssertionError) as failed:
        compare(frame(1.0, 3.0), "one")
    lines = str(failed.value).splitlines()
    assert "-2026-01-01T12:00:00.000+00:00  2.0" in lines
    assert "+2026-01-01T12:00:00.000+00:00  3.0" in lines
    assert not any(line.endswith("1.0") and line[0] in "+-" for line in lines)


def test_a_frame_that_was_never_kept_fails_and_shows_it(tmp_path):
    with pytest.raises(AssertionError, match="--update-frames\n.*frame"):
        FrameSnapshot(tmp_path, "one", update=False)(frame(1.0))
    assert not list(tmp_path.iterdir())


def test_several_frames_of_one_test_have_files_of_their_own(tmp_path):
    keep = FrameSnapshot(tmp_path, "one", update=True)
    keep(frame(1.0))
    keep(frame(2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one-2.txt", "one.txt"]
