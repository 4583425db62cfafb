"""Recordings are played with their gaps, at any speed."""

import asyncio
import contextlib
import io
import os
import time

import msgspec
import pytest

from aiostream_ds import ConfigError
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds.sources.recorded import recorded_source as recorded
from aiostream_ds.sources.recorded import recording as recording_module
from aiostream_ds.sources.recorded.recorded_source import Recorded
from aiostream_ds.sources.recorded.recording import Recorder, RecordingReader
from aiostream_ds.testing import serve_in_memory

STARTED = 1_600_000_000_000


def payload(*numbers, schema=True, name="n"):
    times = Field("time", [STARTED + 100 * n for n in numbers], FieldType.TIME)
    whole = json.packet(Frame(times, Field(name, list(numbers), FieldType.INT64)))
    head = b'"schema":%b,' % whole.schema.body if schema else b""
    return b'{%b"data":%b}' % (head, whole.data)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "out"
    with path.open("wb") as out:
        recorder = Recorder(out, "some/path", STARTED)
        recorder.add(payload(1, 2), 0.25)
        recorder.add(payload(3), 1.25)
        recorder.add(payload(4, schema=False), 3.25)
    return path


@pytest.fixture(autouse=True)
def threads_stop_the_clock(monkeypatch):
    async def run_sync(function, *args, **_):
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    monkeypatch.setattr(recorded.anyio.to_thread, "run_sync", run_sync)


def test_a_recording_has_one_object_per_line_and_the_schema_where_it_changes():
    out = io.BytesIO()
    recorder = Recorder(out, "some/path", STARTED)
    empty = msgspec.json.encode({"schema": msgspec.Raw(msgspec.json.encode({"fields": []}))})
    for t, packet in enumerate(
        [payload(1, 2), payload(3), payload(4, schema=False), payload(5, name="m"), empty, b"{}"]
    ):
        recorder.add(packet, t)
    head, *lines = map(msgspec.json.decode, out.getvalue().splitlines())
    assert head == {"recording": 1, "path": "some/path", "started": STARTED}
    assert [line["t"] for line in lines] == [0, 1, 2, 3, 4]
    assert [list(line)[1:] for line in lines] == [
        ["schema", "data"],
        ["data"],
        ["data"],
        ["schema", "data"],
        ["schema"],
    ]
    assert lines[0]["data"]["values"] == [[STARTED + 100, STARTED + 200], [1, 2]]
    assert (recorder.rows, recorder.packets) == (5, 5)


def test_a_recording_is_read_without_an_incomplete_last_line(recording):
    with recording.open("ab") as out:
        out.write(b'{"t":4,"da')
    reader = RecordingReader(str(recording))
    try:
        packets = reader.read(2) + reader.read(2)
        assert reader.read(2) == []
    finally:
        reader.close()
    assert (reader.path, reader.started) == ("some/path", STARTED)
    assert [packet.t for packet in packets] == [0.25, 1.25, 3.25]
    assert [list(packet.frame.fields[1].values) for packet in packets] == [[1, 2], [3], [4]]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file"),
        (b"", "must be a recording of `aiostream-ds record`"),
        (b"\xff\n", "must be a recording of `aiostream-ds record`"),
        (b'{"recording": 9, "path": "p", "started": 1}\n', "must be a recording of version 1"),
    ],
)
async def test_health_rejects_a_file_that_is_not_a_recording(tmp_path, content, message):
    path = tmp_path / "out"
    if content is not None:
        path.write_bytes(content)
    async with serve_in_memory(Recorded, settings={"file": str(path)}) as grafana:
        ok, text = await grafana.health()
    assert not ok and message in text and str(path) in text


async def test_health_names_the_recorded_channel(recording):
    async with serve_in_memory(Recorded, settings={"file": str(recording)}) as grafana:
        assert await grafana.health() == (True, "a recording of some/path")


def test_an_invalid_line_is_an_error_with_its_number(recording):
    with recording.open("ab") as out:
        out.write(b'{"t":4,"data":{"values":[[1]]}}\n')
    reader = RecordingReader(str(recording))
    try:
        with pytest.raises(ConfigError, match="line 5 of .* must be a recorded packet"):
            reader.read(10)
    finally:
        reader.close()


async def played(monkeypatch, count, **settings):
    """Rows and the times of their arrival, in virtual time."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    monkeypatch.setattr(recorded.time, "time", lambda: 1_700_000_000 + loop.time() - begun)
    rows, moments = [], []
    async with serve_in_memory(Recorded, settings=settings) as grafana:
        viewer = await grafana.follow("replay")
        for _ in range(count):
            rows.append(await viewer.next())
            moments.append(round(loop.time() - begun, 6))
    return rows, moments


@pytest.mark.virtual
async def test_packets_arrive_at_their_times_with_present_times(monkeypatch, recording):
    rows, moments = await played(monkeypatch, 4, file=str(recording))
    assert [row["n"] for row in rows] == [1, 2, 3, 4]
    assert moments == [0.25, 0.25, 1.25, 3.25]
    assert [row["time"] - 1_700_000_000_000 for row in rows] == [100, 200, 300, 400]


@pytest.mark.virtual
async def test_a_faster_replay_has_shorter_gaps_and_scaled_times(monkeypatch, recording):
    rows, moments = await played(monkeypatch, 4, file=str(recording), speed=10)
    assert moments == [0.025, 0.025, 0.125, 0.325]
    assert [row["time"] - 1_700_000_000_000 for row in rows] == [10, 20, 30, 40]


@pytest.mark.virtual
async def test_times_may_be_left_as_recorded(monkeypatch, recording):
    rows, _ = await played(monkeypatch, 4, file=str(recording), shift=False)
    assert [row["time"] - STARTED for row in rows] == [100, 200, 300, 400]


@pytest.mark.virtual
async def test_a_loop_starts_again_after_the_last_gap(monkeypatch, recording):
    rows, moments = await played(monkeypatch, 6, file=str(recording), loop=True)
    assert [row["n"] for row in rows] == [1, 2, 3, 4, 1, 2]
    assert moments[-1] == 3.25 + 2.0 + 0.25
    assert rows[-1]["time"] - 1_700_000_000_000 == 5250 + 200


@pytest.fixture
def nothing_recorded(tmp_path):
    path = tmp_path / "out"
    with path.open("wb") as out:
        Recorder(out, "p", STARTED)
    return str(path)


@pytest.mark.virtual
async def test_an_empty_recording_ends_even_with_loop(nothing_recorded):
    settings = {"file": nothing_recorded, "loop": True}
    async with serve_in_memory(Recorded, settings=settings) as grafana:
        viewer = await grafana.follow("replay")
        with pytest.raises(recorded.anyio.EndOfStream):
            await viewer.next()


def test_all_time_columns_are_shifted():
    clock = recorded._Clock(STARTED, time.time() * 1000, 2.0)
    frame = Frame(
        Field("time", [STARTED], FieldType.TIME, labels={"a": "b"}),
        Field("seen", [None], FieldType.TIME, nullable=True),
        Field("n", [1], FieldType.INT64),
    )
    shifted = clock.shift(frame)
    assert [field.name for field in shifted.fields] == ["time", "seen", "n"]
    assert shifted.fields[0].labels == {"a": "b"}
    assert list(shifted.fields[0].values) == [round(clock._now)]
    assert list(shifted.fields[1].values) == [None] and shifted.fields[1].nullable
    assert shifted.fields[2] is frame.fields[2]


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
async def test_only_a_regular_file_is_a_recording(tmp_path, kind):
    path = "/dev/zero" if kind == "device" else str(tmp_path / "a")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        os.mkdir(path)
    async with serve_in_memory(Recorded, settings={"file": path}) as grafana:
        ok, text = await grafana.health()
    assert not ok and "expected a regular file" in text


def test_a_line_that_is_too_long_ends_the_recording_with_an_error(recording, monkeypatch):
    monkeypatch.setattr(recording_module, "LINE_LIMIT", 1000)
    with recording.open("ab") as out:
        out.write(b"x" * 2000 + b"\n")
    reader = RecordingReader(str(recording))
    with contextlib.closing(reader):
        with pytest.raises(ConfigError, match=r"line 5 of .* must have less than 1,000 bytes"):
            while reader.read(2):
                pass


def test_long_lines_are_read_a_few_at_a_time(recording, monkeypatch):
    longest = max(map(len, recording.read_bytes().splitlines(keepends=True)))
    monkeypatch.setattr(recording_module, "LINE_LIMIT", longest + 1)
    with contextlib.closing(RecordingReader(str(recording))) as reader:
        counts = []
        while packets := reader.read(100):
            counts.append(len(packets))
    assert sum(counts) == 3 and len(counts) > 1
