"""The command line, in this process and as one of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiostream_ds import _telemetry as telemetry
from aiostream_ds.cli import main

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


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder without plugin.json, and logging left as it was."""
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
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


# -- tail ------------------------------------------------------------------------------------------


def test_tail_prints_so_many_rows_with_a_head(capsys):
    assert main(["tail", "walk/1000/1", "--count", "3"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["time", "value"]
    assert len(rows) == 3
    assert all(len(row.split()) == 2 for row in rows)


def test_tail_json_is_one_object_a_row(capsys):
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
    assert status == 1 and "One, Two; give" in text


def test_a_refused_path_is_one_sentence(capsys):
    status, text = failure(capsys, "tail", "walk/0/1")
    assert status == 1
    assert text.startswith("aiostream-ds tail: walk/0/1: refused (NOT_FOUND")


@pytest.mark.parametrize("path", ["x/walk/10/1", "x/anything"])
def test_the_exact_view_is_for_panels(capsys, path):
    status, text = failure(capsys, "tail", path)
    assert status == 1 and f"give its path, {path[2:]}" in text


@pytest.mark.parametrize(
    "words, text",
    [
        (["tail", "missing.py", "p"], "there is no file 'missing.py'"),
        (["tail", "{author}:Three", "p"], "has no DataSource 'Three'; it has: One"),
        (["tail", "p", "--set", "name"], "'name' is not KEY=VALUE"),
        (["tail", "p", "--set", "=1"], "'=1' is not KEY=VALUE"),
        (["tail", "p", "--secret", "x"], "'x' is not KEY=VALUE"),
        (["tail", "{author}"], "give PATH after"),
        (["dev", "--plugin-dir", "nowhere"], "there is no plugin.json with an id in 'nowhere'"),
        (["dev", "missing.py"], "there is no file 'missing.py'"),
        (["dev", "--set", "source=bogus"], "source = 'bogus' is none of 'demo', 'host'"),
        (["dev", "--terminal", "{strict}"], "with --path; there are: things/{{id}}"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(capsys, here, author, words, text):
    strict = here / "strict_file.py"
    strict.write_text(AUTHOR.replace('id: str = "a"', "id: str").replace("lines/{", "things/{"))
    names = {"author": author, "strict": strict}
    status, error = failure(capsys, *(word.format(**names) for word in words))
    sys.modules.pop("strict_file", None)
    assert status == 1
    assert error.startswith(f"aiostream-ds {words[0]}: ") and error.count("\n") == 1
    assert text.format(id="{id}") in error or text.replace("{{id}}", "{id}") in error


def test_a_value_is_json_where_it_can_be(capsys):
    assert (
        main(["tail", "cpu", "--set", "source=host", "--set", "interval=0.1", "--count", "1"]) == 0
    )
    assert "busy [percent]" in capsys.readouterr().out


def test_called_wrongly_is_status_2(capsys):
    assert main(["tail", "a", "b", "c"]) == 2
    assert "PATH, not 'a b c'" in capsys.readouterr().err
    for words in ([], ["bogus"], ["tail"], ["tail", "p", "--count", "0"], ["dev", "--count", "x"]):
        with pytest.raises(SystemExit) as exit:
            main(words)
        assert exit.value.code == 2
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0


ODD = """
import time
import anyio
from aiostream_ds import DataSource, stream

class Odd(DataSource):
    @stream("spin")
    async def spin(self):
        n = 0
        while True:
            n += 1
            yield {"n": n}

    @stream("shows")
    async def shows(self):
        yield {"text": "\\x1b[31mred\\n", "json": {"a": [None]}, "small": 1e-9, "none": None}

    @stream("blocks")
    async def blocks(self):
        yield {"n": 1}
        await anyio.sleep(0.1)
        time.sleep(1.2)
        yield {"n": 2}
"""


@pytest.fixture
def odd(here):
    path = here / "odd_file.py"
    path.write_text(ODD)
    yield str(path)
    sys.modules.pop("odd_file", None)


def test_a_row_cannot_command_the_terminal_and_the_end_is_said(capsys, odd):
    assert main(["tail", odd, "shows"]) == 0
    captured = capsys.readouterr()
    cells = captured.out.splitlines()[1].split()
    assert cells[1:] == ["\\x1b[31mred\\n", '{"a":[null]}', "1e-09", "-"]
    assert "the stream 'shows' has ended" in captured.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "{}", "spin"), ("dev", "{}", "--terminal", "--path", "spin")]
)
def test_one_ctrl_c_ends_a_stream_that_never_waits(odd, words):
    with command(*(word.format(odd) for word in words)) as process:
        for _ in range(1000):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        assert process.wait(10) in (0, 130)  # 0: it noticed the closed pipe first


@pytest.mark.slow
def test_tail_shows_the_line_that_blocks(odd):
    with command("tail", odd, "blocks") as process:
        output, errors = process.communicate(timeout=10)
    assert "the event loop is blocked" in errors
    assert "time.sleep(1.2)" in errors


# -- dev -------------------------------------------------------------------------------------------


def test_dev_serves_and_shows_the_first_path(capsys):
    assert main(["dev", "--count", "2"]) == 0
    first, second, head, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("Serving the built-in plugin on 127.0.0.1:")
    assert second == "Live rows of walk/10/1:"
    assert head.split() == ["time", "value"] and len(rows) == 2


def test_dev_of_a_refused_path_is_one_sentence(capsys):
    assert main(["dev", "--terminal", "--path", "walk/0/1"]) == 1
    assert "aiostream-ds dev: walk/0/1: refused (NOT_FOUND" in capsys.readouterr().err


def test_dev_of_an_authors_file(capsys, author):
    assert main(["dev", author, "--count", "1"]) == 0
    assert "Live rows of lines/a:" in capsys.readouterr().out


def test_dev_keeps_the_files_by_which_grafana_finds_it(capsys, here, monkeypatch):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    seen = []

    async def show(*_, **__):
        seen.append(sorted(path.name for path in here.iterdir()))

    monkeypatch.setattr("aiostream_ds.cli.dev.show", show)
    assert main(["dev", "--terminal", "--plugin-dir", str(here)]) == 0
    assert seen == [["pid.txt", "plugin.json", "standalone.txt"]]
    assert [path.name for path in here.iterdir()] == ["plugin.json"]


def test_a_bad_standalone_address_is_named(capsys, here, monkeypatch):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    monkeypatch.setenv("GF_PLUGIN_GRPC_ADDRESS_X_DATASOURCE", "localhost")
    status, text = failure(capsys, "dev", "--terminal")
    assert status == 1 and "'localhost' is not HOST:PORT" in text


# -- as processes ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "walk/1000/1"), ("dev", "--terminal", "--path", "walk/1000/1")]
)
def test_a_closed_pipe_ends_it_quietly(words):
    with command(*words) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tail", "walk/100/1"), ("dev", "--terminal", "--path", "walk/100/1")]
)
def test_ctrl_c_ends_it_without_a_traceback(words):
    with command(*words) as process:
        for _ in range(4):
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_sigterm_ends_dev_and_removes_its_files(here):
    (here / "plugin.json").write_text('{"id": "x-datasource"}')
    with command("dev", "--terminal", "--path", "walk/100/1") as process:
        for _ in range(4):
            assert process.stdout.readline()
        assert (here / "standalone.txt").exists()
        process.terminate()
        assert process.wait(10) == 0
    assert [path.name for path in Path(here).iterdir()] == ["plugin.json"]


@pytest.mark.slow
def test_run_is_the_plugin_process_and_says_so_elsewhere(author):
    environ = {k: v for k, v in os.environ.items() if k != "grafana_plugin_type"}
    with command("run", author, env=environ) as process:
        assert process.wait(10) == 1
        assert "Grafana" in process.stderr.read() and process.stdout.read() == ""


@pytest.mark.slow
def test_run_shakes_hands(author):
    environ = {
        **os.environ, "grafana_plugin_type": "datasource", "PLUGIN_PROTOCOL_VERSIONS": "2",
    }  # fmt: skip
    with command("run", author, env=environ) as process:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0
    assert line.startswith("1|2|unix|") and line.rstrip().endswith("|grpc|")
