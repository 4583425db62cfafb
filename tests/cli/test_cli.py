"""The command line, in this process and as a subprocess."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from aiostream_ds import _telemetry as telemetry
from aiostream_ds.cli import main
from aiostream_ds.cli.setting_names import missing_options
from aiostream_ds.cli.target import find_target
from aiostream_ds.packaging import contract_check
from aiostream_ds.sources.builtin_plugin import SOURCES

MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"

AUTHOR = """
from aiostream_ds import DataSource, Rows, Row, Secret, Settings, secret, stream

class Broker(Settings):
    name: str = "plain"
    password: Secret = secret()

class Line(Row):
    name: str
    known: bool

class One(DataSource[Broker]):
    @stream("lines/{id}")
    async def lines(self, id: str = "a") -> Rows[Line]:
        for _ in range(100_000):
            yield Line(name=self.settings.name, known=bool(self.settings.password))
"""


WAITING = """
import anyio
from aiostream_ds import DataSource, Rows, Row, Status, stream

class Line(Row):
    number: int

class Waiting(DataSource):
    @stream
    async def rows(self) -> Rows[Line | Status]:
        yield Status("warning", "no sensor yet")
        await anyio.sleep(0.5)  # longer than between two looks at the status
        yield Line(1)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder without plugin.json; logging stays unchanged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "configure", lambda *_, **__: None)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


@pytest.fixture
def author(here):
    path = here / "author_file.py"
    path.write_text(AUTHOR)
    yield str(path)
    sys.modules.pop("author_file", None)


def failure(capsys, *words):
    status = main(words)
    captured = capsys.readouterr()
    assert captured.out == ""
    return status, captured.err


def command(*words, **options):
    words = [sys.executable, "-c", MAIN, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, text=True, stdout=pipe, stderr=pipe, **options)


@pytest.mark.parametrize(
    "words, text",
    [
        (["--set", "nam=x"], "--set must name a setting (name), got 'nam'; use --set name=…"),
        (["--set", "nonsense=5"], "--set must name a setting (name), got 'nonsense'"),
        (["--set", "password=5"], "got 'password'; use --secret password=…"),
        (["--secret", "name=x"], "--secret must name a setting (password), got 'name'; use --set"),
    ],
)
@pytest.mark.parametrize("subcommand", ["tail", "check"])
def test_an_unknown_setting_is_an_error_with_what_may_have_been_meant(
    capsys, author, subcommand, words, text
):
    operands = [author, "lines/a", "--count", "1"] if subcommand == "tail" else [author]
    status, error = failure(capsys, subcommand, *operands, *words)
    assert status == 1 and text in error


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["push", "lab/run", "--to", "http://localhost:3030"], "--to"),  # begins --token-file
        (["package", "--run", "host"], "--run"),
        (["--vers"], "--vers"),
    ],
)
def test_the_beginning_of_an_option_is_not_taken_for_it(capsys, words, option):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert option in error.splitlines()[-1] or "required: COMMAND" in error


def test_the_setting_that_selects_the_source_is_known(capsys):
    assert main(["tail", "walk/1000/1", "--count", "1", "--set", "source=demo"]) == 0
    capsys.readouterr()
    status, error = failure(capsys, "tail", "a", "--set", "source=demo", "--set", "sourc=file")
    assert status == 1 and "use --set source=" in error


PATHS = """
from aiostream_ds import BadQuery, DataSource, stream

class One(DataSource):
    @stream("topics/{topic:any}")
    async def topics(self, topic: str):
        yield {"topic": topic}

    @stream("gone")
    async def gone(self):
        yield {"value": 1}
        raise BadQuery("there is no such thing")
"""


@pytest.fixture
def paths(here):
    path = here / "paths_file.py"
    path.write_text(PATHS)
    yield str(path)
    sys.modules.pop("paths_file", None)


@pytest.mark.parametrize("name", ["queue", "types", "socket", "logging", "anyio", "pyarrow"])
@pytest.mark.parametrize("subcommand", ["tail", "check", "dev", "package"])
def test_a_file_must_not_replace_a_module(capsys, here, name, subcommand):
    (here / f"{name}.py").write_text(AUTHOR)
    before = sys.modules.get(name)
    words = [f"{name}.py", "lines/a"] if subcommand == "tail" else [f"{name}.py"]
    status, error = failure(capsys, subcommand, *words)
    assert status == 1
    assert f"got '{name}.py'; rename it, for example to my_{name}.py" in error
    assert "Traceback" not in error and sys.modules.get(name) is before


def test_a_file_next_to_the_authors_file_does_not_replace_a_module_of_python(author, here):
    (here / "this.py").write_text("raise RuntimeError('replaced')")
    (here / "helper_of_author.py").write_text("value = 5")
    find_target(author)
    with contextlib.redirect_stdout(io.StringIO()):
        assert importlib.import_module("this").s
    assert importlib.import_module("helper_of_author").value == 5


def test_tail_takes_a_text_that_a_path_has_as_base64url(capsys, paths):
    assert main(["tail", paths, "topics/home/+/temp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["topic"] == "home/+/temp"


def test_tail_fills_in_the_defaults_at_the_end_of_a_path(capsys, author):
    assert main(["tail", author, "lines", "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "plain"


@pytest.mark.parametrize(
    "words",
    [
        ["tail", "{}", "lnies/a"],
        ["record", "{}", "lnies/a", "out"],
        ["dev", "{}", "--path", "lnies/a"],
        ["dev", "{}", "--terminal", "--path", "lnies/a"],
    ],
)
def test_a_path_of_no_stream_is_named_with_those_that_are(capsys, author, words):
    status, text = failure(capsys, *(word.format(author) for word in words))
    assert status == 1 and "expected a path of the streams 'lines/{id}', got 'lnies/a'" in text


@pytest.mark.parametrize("command", ["tail", "record"])
def test_a_permanent_error_ends_the_command_with_its_message(capsys, paths, here, command):
    words = ["gone"] if command == "tail" else ["gone", str(here / "rows.jsonl")]
    assert main([command, paths, *words]) == 1
    assert "gone: there is no such thing" in capsys.readouterr().err


def test_tail_shows_the_date_of_a_time(capsys):
    assert main(["tail", "walk/1000/1", "--count", "1"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    time, _ = row.split()
    assert abs((datetime.now() - datetime.fromisoformat(time)).total_seconds()) < 60
    assert len(head) == len(row)


# -- tail ------------------------------------------------------------------------------------------


def test_tail_prints_count_rows_with_a_header(capsys):
    assert main(["tail", "walk/1000/1", "--count", "3"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["time", "value"]
    assert len(rows) == 3
    assert all(len(row.split()) == 2 for row in rows)


@pytest.mark.slow
def test_tail_and_record_print_the_status_of_a_stream_without_rows(capsys, here):
    (here / "waiting_file.py").write_text(WAITING)
    for words in (["tail", "waiting_file.py", "rows"], ["record", "waiting_file.py", "rows", "f"]):
        assert main([*words, "--count", "1"]) == 0
        assert "rows: no sensor yet\n" in capsys.readouterr().err
    sys.modules.pop("waiting_file", None)


def test_tail_json_prints_one_object_a_row(capsys):
    assert main(["tail", "walk/1000/1", "--count", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(row) for row in rows] == [{"time", "value"}] * 3


def test_tail_of_an_authors_file_with_its_settings(capsys, author):
    words = ["tail", author, "lines/a", "--count", "1", "--json"]
    assert main([*words, "--set", "name=kitchen", "--secret", "password=1234"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["known"]) == ("kitchen", True)


def test_tail_of_one_class_of_several(capsys, author):
    with open(author, "a") as file:
        file.write("class Two(One): pass\n")
    assert main(["tail", f"{author}:Two", "lines/a", "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["known"] is False
    sys.modules.pop("author_file")
    status, text = failure(capsys, "tail", author, "lines/a")
    assert status == 1 and "got One, Two; use" in text


def test_a_refused_path_is_one_sentence(capsys):
    status, text = failure(capsys, "tail", "walk/0/1")
    assert status == 1
    assert text == "aiostream-ds tail: path 'walk/0/1': hz: expected int >= 1, got 0\n"


@pytest.mark.parametrize("path", ["x/walk/10/1", "x/anything"])
def test_an_exact_channel_is_for_panels(capsys, path):
    status, text = failure(capsys, "tail", path)
    assert status == 1 and f"use {path[2:]}" in text


@pytest.mark.parametrize("subcommand", ["check", "package"])
def test_a_mistake_in_a_class_is_shown_with_its_place_in_the_file_only(capsys, here, subcommand):
    path = here / "wrong_file.py"
    path.write_text(AUTHOR.replace('id: str = "a"', 'id: str = "a b"'))
    status, error = failure(capsys, subcommand, str(path))
    lines = error.splitlines()
    assert status == 1 and lines[0].endswith(f"{path} cannot be loaded:")
    assert lines[-1].startswith("TypeError: wrong_file.One.lines: the default 'a b' of 'id': id ")
    assert [line for line in lines if "File" in line] == [f'  File "{path}", line 12, in <module>']
    sys.modules.pop("wrong_file", None)


@pytest.mark.parametrize(
    "words, text",
    [
        (["tail", "missing.py", "p"], "got 'missing.py', which does not exist"),
        (["tail", "{author}:Three", "p"], "has no DataSource 'Three'; it has One"),
        (["tail", "p", "--set", "name"], "expected KEY=VALUE, got 'name'"),
        (["tail", "p", "--set", "=1"], "expected KEY=VALUE, got '=1'"),
        (["tail", "p", "--secret", "x"], "expected KEY=VALUE, got a text without ="),
        (["tail", "p", "--secret", "password=\udcf6x"], "in UTF-8, got 'password=…'"),
        (["tail", "{author}"], "expected PATH after"),
        (
            ["dev", "--plugin-dir", "nowhere"],
            "expected a folder with a plugin.json with an id, got 'nowhere'",
        ),
        (["dev", "missing.py"], "got 'missing.py', which does not exist"),
        (
            ["dev", "--set", "source=bogus"],
            f"source must be one of {', '.join(map(repr, SOURCES))}, got 'bogus'",
        ),
        (["dev", "--terminal", "{strict}"], "use --path with one of: things/{{id}}"),
        (["dev", "--path", "walk/10/{{1..3}}/x"], "got 'walk/10/1/x'"),
        (["dev", "--path", "walk/10/{{1..3}}", "--terminal"], "got 'walk/10/{{1..3}}'"),
    ],
)
def test_an_error_is_one_sentence_with_the_wrong_value(capsys, here, author, words, text):
    strict = here / "strict_file.py"
    strict.write_text(AUTHOR.replace('id: str = "a"', "id: str").replace("lines/{", "things/{"))
    names = {"author": author, "strict": strict}
    status, error = failure(capsys, *(word.format(**names) for word in words))
    sys.modules.pop("strict_file", None)
    assert status == 1
    assert error.startswith(f"aiostream-ds {words[0]}: ") and error.count("\n") == 1
    assert text.format(id="{id}") in error or text.replace("{{id}}", "{id}") in error


def test_a_setting_that_is_json_is_decoded(capsys):
    assert (
        main(["tail", "cpu", "--set", "source=host", "--set", "interval=0.1", "--count", "1"]) == 0
    )
    assert "busy [percent]" in capsys.readouterr().out


def test_wrong_usage_is_status_2(capsys):
    assert main(["tail", "a", "b", "c"]) == 2
    assert "PATH, got 'a b c'" in capsys.readouterr().err
    for words in ([], ["bogus"], ["tail"], ["tail", "p", "--count", "0"], ["dev", "--count", "x"]):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 2
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0


EXAMPLE = """
import time
import anyio
from aiostream_ds import DataSource, stream

class Example(DataSource):
    @stream("spin")
    async def spin(self):
        n = 0
        while True:
            n += 1
            yield {"n": n}

    @stream("cells")
    async def cells(self):
        yield {"text": "\\x1b[31mred\\n", "json": {"a": [None]}, "small": 1e-9, "none": None}

    @stream("large")
    async def large(self):
        yield {"text": 5_000_000 * "x"}

    @stream("blocks")
    async def blocks(self):
        yield {"n": 1}
        await anyio.sleep(0.1)
        time.sleep(1.2)
        yield {"n": 2}
"""


@pytest.fixture
def example(here):
    path = here / "example_file.py"
    path.write_text(EXAMPLE)
    yield str(path)
    sys.modules.pop("example_file", None)


def test_a_row_cannot_control_the_terminal_and_the_end_is_reported(capsys, example):
    assert main(["tail", example, "cells"]) == 0
    captured = capsys.readouterr()
    cells = captured.out.splitlines()[1].split()
    assert cells[1:] == ["\\x1b[31mred\\n", '{"a":[null]}', "1e-09", "-"]
    assert "the stream 'cells' has ended" in captured.err


def test_a_large_text_does_not_fill_the_terminal(capsys, example):
    assert main(["tail", example, "large"]) == 0
    out = capsys.readouterr().out
    assert "x… (5,000,000 characters)" in out and len(out) < 2_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "{}", "spin"), ("dev", "{}", "--terminal", "--path", "spin")]
)
def test_one_ctrl_c_stops_a_stream_that_never_waits(example, words):
    with command(*(word.format(example) for word in words)) as process:
        for _ in range(1000):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(15) in (0, 130)  # 0: it noticed the closed pipe first


@pytest.mark.slow
def test_tail_shows_the_line_that_blocks(example):
    with command("tail", example, "blocks") as process:
        output, errors = process.communicate(timeout=15)
    assert "the event loop is blocked" in errors
    assert "time.sleep(1.2)" in errors


# -- dev -------------------------------------------------------------------------------------------


def test_dev_serves_and_shows_the_first_path(capsys):
    assert main(["dev", "--count", "2"]) == 0
    first, second, head, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("Serving the built-in plugin on /")
    assert second == "Live rows of walk/10/1:"
    assert head.split() == ["time", "value"] and len(rows) == 2


def test_dev_of_a_refused_path_is_one_sentence(capsys):
    assert main(["dev", "--terminal", "--path", "walk/0/1"]) == 1
    expected = "aiostream-ds dev: path 'walk/0/1': hz: expected int >= 1, got 0\n"
    assert capsys.readouterr().err == expected


def test_dev_of_an_authors_file(capsys, author):
    assert main(["dev", author, "--count", "1"]) == 0
    assert "Live rows of lines/a:" in capsys.readouterr().out


def test_dev_writes_and_removes_the_files_with_its_address(capsys, here, monkeypatch):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    seen = []

    async def show(*_, **__):
        seen.append(sorted(path.name for path in here.iterdir()))

    monkeypatch.setattr("aiostream_ds.cli.dev.show", show)
    assert main(["dev", "--terminal", "--plugin-dir", str(here)]) == 0
    assert seen == [["pid.txt", "plugin.json", "standalone.sock", "standalone.txt"]]
    assert [path.name for path in here.iterdir()] == ["plugin.json"]


def test_a_planted_link_in_the_plugins_folder_is_one_sentence(capsys, here):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    (here / "standalone.txt").symlink_to("/etc/passwd")
    status, text = failure(capsys, "dev", "--terminal", "--plugin-dir", str(here))
    assert status == 1 and "standalone.txt must be a file, got a link" in text
    assert text.count("\n") <= 1 and "Traceback" not in text


def test_a_wrong_standalone_address_is_an_error(capsys, here, monkeypatch):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    monkeypatch.setenv("GF_PLUGIN_GRPC_ADDRESS_X_DATASOURCE", "localhost")
    status, text = failure(capsys, "dev", "--terminal")
    assert status == 1 and "must be HOST:PORT, got 'localhost'" in text


# -- subprocesses ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "walk/1000/1"), ("dev", "--terminal", "--path", "walk/1000/1")]
)
def test_a_closed_pipe_stops_it_without_output(words):
    with command(*words) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(15) == 0
        assert process.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "walk/100/1"), ("dev", "--terminal", "--path", "walk/100/1")]
)
def test_ctrl_c_stops_it_without_a_traceback(words):
    with command(*words) as process:
        for _ in range(4):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_sigterm_stops_dev_and_removes_its_files(here):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    with command("dev", "--terminal", "--path", "walk/100/1") as process:
        for _ in range(4):
            assert process.stdout.readline()
        assert (here / "standalone.txt").exists()
        process.terminate()
        assert process.wait(15) == 0
    assert [path.name for path in Path(here).iterdir()] == ["plugin.json"]


@pytest.mark.slow
def test_run_without_grafana_explains_what_it_is(author):
    environ = {k: v for k, v in os.environ.items() if k != "grafana_plugin_type"}
    with command("run", author, env=environ) as process:
        assert process.wait(15) == 1
        assert "Grafana" in process.stderr.read() and process.stdout.read() == ""


@pytest.mark.slow
def test_run_prints_the_handshake(author):
    plugin = {"grafana_plugin_type": "datasource", "PLUGIN_PROTOCOL_VERSIONS": "2"}
    environ = {**os.environ, **plugin}
    with command("run", author, env=environ) as process:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(15) == 0
    assert line.startswith("1|2|unix|") and line.rstrip().endswith("|grpc|")


CHECKED = """
from datetime import UTC, datetime, timedelta
from aiostream_ds import DataSource, HistoryRange, Secret, Settings, stream

class Broker(Settings):
    url: str
    token: Secret

class One(DataSource[Broker]):
    @stream("names")
    async def names(self):
        yield {"time": datetime.now(UTC), "name": "a"}

    @names.history
    async def past(self, history_range: HistoryRange):
        now = datetime.now(UTC)
        return [{"time": now - timedelta(seconds=3 - n), "name": "a"} for n in range(3)]
"""


@pytest.mark.slow
def test_check_names_the_settings_that_it_needs_instead_of_failing(capsys, here):
    (here / "checked_file.py").write_text(CHECKED)
    assert main(["check", "checked_file.py"]) == 0
    out = capsys.readouterr().out
    assert "ok       start: handshake" in out and "error" not in out
    assert "warning  settings: calls are not checked: it has settings without a default" in out
    assert "cure: use --set url=… --secret token=…" in out


@pytest.mark.parametrize(
    ("settings", "secrets", "expected"),
    [
        ({}, {}, ["--set url=…", "--secret token=…"]),
        ({"url": "x"}, {}, ["--secret token=…"]),
        ({"url": None}, {"token": ""}, []),
        ({"source": "other"}, {}, []),
        ({"source": "none"}, {}, []),
    ],
)
def test_missing_settings_are_those_without_a_default_of_the_configured_source(
    settings, secrets, expected
):
    one = {
        "name": "one",
        "settings": {"properties": {}, "required": ["url", "token"]},
        "secrets": ["token"],
    }
    other = {"name": "other", "settings": {"properties": {}}, "secrets": []}
    document = {"sourceSetting": "source", "sources": [one, other]}
    assert missing_options(document, settings, secrets) == expected
    assert missing_options({}, settings, secrets) == []


@pytest.mark.slow
def test_check_finds_what_panels_and_alert_rules_cannot_use(capsys, here):
    (here / "checked_file.py").write_text(CHECKED)
    assert main(["check", "checked_file.py", "--set", "url=x", "--secret", "token=t"]) == 1
    out = capsys.readouterr().out
    assert "warning  health: Save & test is green with any settings" in out
    assert "error    history names: the history must have at most `limit` rows, got 3" in out
    assert "error    history names: the history must have rows from `start` on" in out
    assert "warning  alert rules names: " in out


BLOCKED = """
import time
from aiostream_ds import DataSource, stream

class Blocked(DataSource):
    @stream
    async def rows(self):
        yield {"n": 1}
        time.sleep(3600)
        yield {"n": 2}
"""


@pytest.mark.slow
def test_check_of_a_plugin_that_answers_no_more_ends_with_an_error(capsys, here, monkeypatch):
    monkeypatch.setattr(contract_check, "ANSWER_TIMEOUT", 1.0)
    monkeypatch.setattr(contract_check, "FIRST_ROW_TIMEOUT", 2.0)
    (here / "checked_file.py").write_text(BLOCKED)
    assert main(["check", "checked_file.py"]) == 1
    out = capsys.readouterr().out
    assert "error    metrics: TimeoutError: expected an answer within 1 s, got none" in out
    assert "warning  event loop: it was blocked, and every stream and call waited: " in out
    assert "line 9, in rows time.sleep(3600)" in out
