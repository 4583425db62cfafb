"""`aiostream-ds record`, in this process and as a subprocess."""

import json
import signal
import subprocess
import sys

import pytest

from aiostream_ds import _telemetry as telemetry
from aiostream_ds.cli import main, record
from tests.test_redaction import SECRETS
from tests.test_redaction import check as check_no_secret

pytestmark = pytest.mark.slow  # a process for each test

MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "configure", lambda *_, **__: None)
    return tmp_path


def read(path):
    head, *lines = map(json.loads, path.read_text().splitlines())
    return head, lines


def test_count_rows_are_recorded_and_the_result_is_printed(here, capsys):
    assert main(["record", "walk/1000/1", "out", "--count", "30"]) == 0
    head, lines = read(here / "out")
    assert head["recording"] == 1 and head["path"] == "walk/1000/1"
    assert "schema" in lines[0] and sum("schema" in line for line in lines) == 1
    rows = sum(len(line["data"]["values"][0]) for line in lines if "data" in line)
    assert rows >= 30
    assert [line["t"] for line in lines] == sorted(line["t"] for line in lines)
    assert f"{rows} rows in {len(lines)} packets: out" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["yields", "failing/permanent"])
def test_a_recording_has_no_secret(here, capsys, path):
    file = here / "leaking_source.py"
    file.write_text("from tests.test_redaction import Leaking\n")
    words = [f"{file}:Leaking", path, "out", "--count", "5", "--seconds", "0.5"]
    for name, value in SECRETS.items():
        if name in ("password", "key"):
            words += ["--secret", f"{name}={value}"]
    main(["record", *words])
    sys.modules.pop("leaking_source")
    output = capsys.readouterr()
    # a recording has rows, no statuses: the marker is for `check_no_secret`
    check_no_secret([(here / "out").read_text(), output.out, output.err, "***"])


def test_it_stops_after_the_seconds(here):
    assert main(["record", "walk/100/1", "out", "--seconds", "1"]) == 0
    _, lines = read(here / "out")
    assert 0 < lines[-1]["t"] < 5


def test_a_recording_can_be_played(here, capsys):
    assert main(["record", "walk/1000/1", "out", "--count", "10"]) == 0
    author = here / "play_file.py"
    author.write_text("from aiostream_ds.sources.recorded.recorded_source import Recorded\n")
    words = ["tail", f"{author}:Recorded", "replay", "--set", "file=out", "--count", "10", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    sys.modules.pop("play_file")
    assert len(capsys.readouterr().out.splitlines()) == 10


@pytest.mark.parametrize(
    "words, text",
    [
        (["walk/0/1", "out"], "path 'walk/0/1': hz: expected int >= 1, got 0"),
        (["walk/1/1", "existing"], "'existing' cannot be created: File exists"),
        (["walk/1/1", "no/out"], "'no/out' cannot be created: No such file"),
        (["missing.py", "p", "out"], "got 'missing.py', which does not exist"),
    ],
)
def test_an_error_is_one_sentence_and_leaves_no_file(here, capsys, words, text):
    (here / "existing").write_text("unchanged")
    assert main(["record", *words]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("aiostream-ds record: ") and text in captured.err
    assert captured.err.count("\n") == 1
    assert not (here / "out").exists() and (here / "existing").read_text() == "unchanged"


@pytest.mark.parametrize(
    "words",
    [["p"], ["a", "b", "c", "d"], ["p", "out", "--seconds", "0"], ["p", "out", "--seconds", "x"]],
)
def test_wrong_usage_is_status_2(here, words):
    try:
        status = main(["record", *words])
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert not (here / "out").exists()


def test_a_full_disk_is_one_sentence(here, capsys, monkeypatch):
    def add(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.Recorder, "add", add)
    assert main(["record", "walk/1000/1", "out"]) == 1
    assert "'out': No space left on device" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_it_and_the_file_is_complete(here):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "record", "walk/1000/1", "out"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while not (here / "out").exists() or (here / "out").stat().st_size < 5_000:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=15)[1]
    assert process.returncode == 0
    assert "Traceback" not in error and "rows in" in error
    assert (here / "out").read_bytes().endswith(b"\n")
    read(here / "out")
