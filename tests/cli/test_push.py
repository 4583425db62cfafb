"""`aiostream-ds push`: lines as rows, files that grow, signals and exit codes."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds.cli import main
from aiostream_ds.cli.push_lines import LINE_LIMIT, _Lines, read_file
from aiostream_ds.cli.push_rows import FORMATS, BadLine, LineRows
from aiostream_ds.push.row_json import RowJson
from tests.push.push_server import PushServer
from tests.waiting import until

MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"


def read(*lines, **options):
    reader = LineRows(**options)
    return [row for line in lines for row in reader.read(line)]


LETTERS = """{}[]"'=:;,|\\\t 0123456789.eE+-_truefalsnNI/&\r"""


# Lines as rows


@pytest.mark.parametrize(
    "line, row",
    [
        ('{"loss": 0.5, "name": "a"}', {"loss": 0.5, "name": "a"}),
        ('{"loss": NaN}', {"loss": None}),
        ("3", {"value": 3}),
        (" -0.5e3 ", {"value": -500.0}),
        ("loss=0.5 step=3", {"loss": 0.5, "step": 3}),
        ("epoch 3: loss=0.5, acc=0.9;", {"loss": 0.5, "acc": 0.9}),
        ("[epoch 3] loss=0.5", {"loss": 0.5}),
        (
            'level=info msg="two words \\"x\\"" ok=true',
            {"level": "info", "msg": 'two words "x"', "ok": True},
        ),
        ("who='it is'", {"who": "it is"}),
        ("a.b/c-d=1", {"a.b/c-d": 1}),
        ("2026-11-29 12:00:00 INFO loss=1", {"loss": 1}),
        ("45%|████      | loss=0.12", {"loss": 0.12}),
        ("n=9007199254740993", {"n": 9007199254740993}),
    ],
)
def test_a_line_of_a_program_is_a_row(line, row):
    assert read(line) == [row]


def test_an_array_of_objects_is_several_rows():
    assert read('[{"n": 1}, {"n": 2}]') == [{"n": 1}, {"n": 2}]


def test_the_first_line_of_csv_is_its_header():
    assert read("step,loss,name", "1,0.5,a", "2,,b", "") == [
        {"step": 1, "loss": 0.5, "name": "a"},
        {"step": 2, "name": "b"},
    ]
    assert read("step;loss", "1;0.5") == [{"step": 1, "loss": 0.5}]
    assert read("step\tloss", "1\t0.5") == [{"step": 1, "loss": 0.5}]
    assert read('"a","b, c"', '1,"2"') == [{"a": 1, "b, c": 2}]


def test_a_first_line_of_prose_is_not_a_header():
    reader = LineRows()
    assert reader.read("Loading data, please wait") == []
    assert reader.read("3") == [{"value": 3}]
    assert reader.read("loss=1, n=2") == [{"loss": 1, "n": 2}]
    assert reader.left_out == 1
    reader = LineRows()
    reader.read("Hello, you")
    reader.end()
    assert reader.left_out == 1


def test_csv_without_a_header_has_the_names_that_are_given():
    assert read("1,0.5", "2,0.25", names=["step", "loss"]) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25},
    ]


def test_lines_of_several_formats_may_follow_each_other():
    lines = ["starting", '{"n": 1}', "n=2", "3"]
    reader = LineRows()
    found = []
    for line in lines:
        try:
            found += reader.read(line)
        except BadLine:
            found.append(None)
    assert found == [None, {"n": 1}, {"n": 2}, {"value": 3}]


@pytest.mark.parametrize(
    "kind, line, text",
    [
        ("auto", "hello", "expected JSON, a number, key=value, or CSV after a header, got 'hello'"),
        ("auto", '{"n": 1', "expected JSON, got"),
        ("auto", "{}", "expected an object of JSON with values"),
        ("auto", "[1, 2]", "expected an object of JSON with values"),
        ("auto", "x" * 500, "…'"),
        ("auto", "http://x/?a=1", "expected JSON"),
        ("json", "3 4", "expected JSON"),
        ("json", '"text"', "expected an object"),
        ("number", "x", "expected a number, got 'x'"),
        ("number", "nan", "expected a number"),
        ("pairs", "3", "expected key=value"),
        ("csv", "1,2", "expected the header of CSV, got '1,2'; use --names"),
    ],
)
def test_what_is_not_a_row_is_an_error_with_the_reason(kind, line, text):
    with pytest.raises(BadLine) as error:
        LineRows(kind).read(line)
    assert text in str(error.value) and len(str(error.value)) < 200


def test_a_line_of_csv_with_other_cells_is_an_error():
    reader = LineRows()
    reader.read("a,b")
    assert reader.read("1,2") == [{"a": 1, "b": 2}]
    for line in ("1,2,3", "1", ","):
        with pytest.raises(BadLine, match="expected"):
            reader.read(line)
    assert reader.read("1,2") == [{"a": 1, "b": 2}]


@pytest.mark.slow
@given(st.lists(st.text(alphabet=LETTERS) | st.text(), max_size=4), st.sampled_from(FORMATS))
def test_any_line_is_rows_that_can_be_sent_or_an_error_with_a_short_reason(lines, kind):
    reader, encode = LineRows(kind), RowJson().encode
    for line in lines:
        try:
            for row in reader.read(line):
                assert b"\n" not in encode(row)[0]
        except (BadLine, ValueError, TypeError) as error:
            assert 0 < len(str(error)) < 400


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_any_bytes_are_the_same_lines_however_they_arrive(parts):
    whole = cut(b"".join(parts))
    assert cut(*parts) == whole
    assert b"\n" not in b"".join(whole)


# Bytes as lines


def cut(*parts):
    lines = _Lines()
    found = [line for part in parts for line in lines.feed(part)]
    return [line.data for line in (*found, *lines.end())]


def test_lines_end_with_any_line_end_also_between_two_reads():
    assert cut(b"a\nb\r\nc\rd", b"e\r", b"\nf\r", b"g") == [b"a", b"b", b"c", b"de", b"f", b"g"]
    assert cut(b"a\r") == [b"a"] and cut(b"\n\n") == [b"", b""] and cut() == []


def test_a_long_line_is_cut_and_the_next_one_is_whole():
    lines = _Lines()
    found = []
    for part in (b"x" * 600_000, b"x" * 600_000, b"x" * 600_000, b"\nb\n"):
        found += lines.feed(part)
    assert [line.is_long for line in found] == [True, False]
    assert len(found[0].data) == LINE_LIMIT and found[1].data == b"b"


def test_text_is_utf_8_with_a_bom_and_other_bytes_replaced():
    lines = [*_Lines().feed(b"\xef\xbb\xbfa\n\xff\n")]
    assert [line.text for line in lines] == ["a", "\N{REPLACEMENT CHARACTER}"]


def follow(path, steps):
    """The lines of a file that is followed, while `steps` change it at each end of its lines."""
    wake, _ = os.pipe()
    found = []
    reader = read_file(path, wake, follow=True, replaced=lambda: found.append("again"))
    steps = iter(steps)
    idle = 0
    for line in reader:
        if line is not None:
            found.append(line.data.decode())
            idle = 0
            continue
        step = next(steps, None)
        if step is not None:
            step()
        else:
            idle += 1
            if idle > 3:
                break
    reader.close()
    os.close(wake)
    return found


def test_a_file_is_followed_over_rotation_and_truncation(tmp_path):
    path = tmp_path / "log"
    path.write_text("1\n2\n")

    def append(text):
        with path.open("a") as file:
            file.write(text)

    def rotate():
        append("4\n")
        path.rename(tmp_path / "log.1")
        path.write_text("5\n")

    steps = [lambda: append("3"), lambda: append("3\n"), rotate, lambda: path.write_text("")]
    steps += [lambda: path.write_text("6\n")]
    assert follow(path, steps) == ["1", "2", "33", "4", "again", "5", "again", "6"]


def test_a_file_that_is_away_for_a_moment_is_followed_again(tmp_path):
    path = tmp_path / "log"
    path.write_text("1\n")
    steps = [lambda: path.rename(tmp_path / "old"), lambda: None, lambda: path.write_text("2\n")]
    assert follow(path, steps) == ["1", "again", "2"]


# The command


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("AIOSTREAM_DS_PUSH_TOKEN", raising=False)
    with PushServer() as found:
        monkeypatch.setenv("AIOSTREAM_DS_PUSH_URL", found.url)
        yield found


def start(*words, **options):
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "push", *words],
        **{"stdin": pipe, "stdout": pipe, "stderr": pipe, "text": True, **options},
    )


def push(*words, lines="", **options):
    process = start(*words, **options)
    out, error = process.communicate(lines, timeout=15)
    return process.returncode, out, error


def values(server, key="value"):
    return [row[key] for row in server.rows]


@pytest.mark.slow
def test_what_a_program_prints_is_pushed_and_the_rest_reported(server):
    status, out, error = push("lab/run-1", lines="starting\n1\n2\nwhat?\n3\n")
    assert (status, out) == (0, "") and values(server) == [1, 2, 3]
    assert server.requests[0][0] == "/push/lab/run-1"
    assert "line 1: expected JSON, a number" in error and "line 4: " in error
    assert error.endswith("aiostream-ds push: 3 rows taken, 2 lines left out\n")


@pytest.mark.slow
def test_only_the_first_bad_lines_are_reported_each(server):
    _, _, error = push("a", lines="1\n" + "bad\n" * 100)
    assert error.count("expected JSON") == 5 and "100 lines left out" in error


@pytest.mark.slow
def test_the_input_can_be_copied(server):
    status, out, error = push("a", "--tee", "--quiet", lines="1\nno\n")
    assert (status, out) == (0, "1\nno\n") and "rows taken" not in error


@pytest.mark.slow
def test_a_copy_that_nobody_reads_does_not_stop_the_rows(server):
    command = f"seq 20000 | {sys.executable} -c '{MAIN}' push a --tee --quiet | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert done.stdout == "1\n" and done.stderr == ""
    assert values(server) == [*range(1, 20_001)]


@pytest.mark.slow
def test_standard_error_that_is_closed_does_not_stop_the_rows(server):
    command = f"seq 100 | {sys.executable} -c '{MAIN}' push a 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=20).returncode == 0
    assert values(server) == [*range(1, 101)]


@pytest.mark.slow
def test_a_file_is_pushed_and_followed(server, tmp_path):
    path = tmp_path / "run-7.log"
    path.write_text("n=1\n")
    assert push("lab/x", str(path))[0] == 0
    assert server.requests[-1][0] == "/push/lab/x"
    process = start(str(path), "--follow")
    server.arrived.acquire(timeout=15)
    server.arrived.acquire(timeout=15)
    assert server.requests[-1][0] == "/push/run-7"
    with path.open("a") as file:
        file.write("n=2\n")
    server.arrived.acquire(timeout=15)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=15)
    assert process.returncode == 130 and "2 rows taken" in error
    assert values(server, "n") == [1, 1, 2]


@pytest.mark.slow
async def test_after_ctrl_c_the_last_rows_of_the_program_are_pushed(server):
    process = start("a", "--quiet")
    process.stdin.write("1\n")
    process.stdin.flush()
    await until(lambda: values(server) == [1])
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)  # the program before it is slower to end
    process.stdin.write("2\n")
    _, error = process.communicate(timeout=15)
    assert (process.returncode, error) == (130, "")
    assert values(server) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_at_once_and_states_what_is_missing(server, number):
    server.gate.clear()
    process = start("a", "--wait", "60")
    process.stdin.write("1\n")
    process.stdin.flush()
    server.arrived.acquire(timeout=15)
    process.send_signal(number)
    process.stdin.close()
    time.sleep(0.2)
    assert process.poll() is None
    for _ in range(10):  # two that the process has not handled yet are one
        process.send_signal(number)
        if select.select([process.stderr], [], [], 2.0)[0]:
            break
    assert process.wait(15) == 128 + number
    assert "1 rows have no answer" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.slow
def test_a_server_that_is_away_at_the_end_is_an_error_with_the_count(server):
    server.stop()
    status, _, error = push("a", "--wait", "0.3", lines="1\n2\n")
    assert status == 1 and "2 rows have no answer yet" in error and "connection refused" in error


@pytest.mark.slow
def test_a_refusal_ends_the_command(server):
    server.answers.append((403, {}, {"message": "Editor is needed"}))
    process = start("a")
    process.stdin.write("1\n")
    process.stdin.flush()
    server.arrived.acquire(timeout=15)
    with pytest.raises(BrokenPipeError):  # as any program that is at the other end gets it
        for _ in range(200):
            process.stdin.write("2\n")
            process.stdin.flush()
            time.sleep(0.05)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    assert process.wait(15) == 1
    error = process.stderr.read()
    assert error.count("Editor is needed") == 2  # the error, and the summary
    process.stdout.close()
    process.stderr.close()


@pytest.mark.slow
def test_rows_that_the_server_refuses_are_an_error(server):
    server.refuse = lambda row: "too low" if row["value"] < 0 else ""
    status, _, error = push("a", lines="1\n-1\n")
    assert status == 1 and "too low" in error and "1 row taken, 1 refused" in error


@pytest.mark.slow
def test_input_without_any_row_is_an_error(server):
    status, _, error = push("a", lines="no\nrows\n")
    assert status == 1 and "0 rows taken, 2 lines left out" in error
    assert push("a", lines="")[0] == 0


@pytest.mark.slow
def test_the_token_is_read_from_a_file(server, tmp_path):
    file = tmp_path / "token"
    file.write_text("glsa_x\n")
    assert push("a", "--uid", "u-1", "--token-file", str(file), lines="1\n")[0] == 0
    path, headers, _ = server.requests[0]
    assert path == "/api/datasources/uid/u-1/resources/push/a"
    assert headers["Authorization"] == "Bearer glsa_x"


@pytest.mark.slow
def test_a_terminal_shows_the_progress(server):
    master, terminal = pty.openpty()
    status, _, _ = push("a", lines="1\nno\n2\n", stderr=terminal)
    os.close(terminal)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert status == 0 and "rows taken" in shown
    assert "\x1b[K" in shown and "line 2: " in shown


@pytest.mark.parametrize(
    "words, status, text",
    [
        (["a", "b", "c"], 2, "expected PATH or PATH FILE, got 'a b c'"),
        (["a b"], 1, "path must be segments"),
        (["a", "--url", "localhost:3030"], 1, "url must be an http or https address"),
        (["a", "--token-file", "/nowhere"], 1, "'/nowhere': No such file or directory"),
        (["a", "/nowhere"], 1, "'/nowhere' cannot be read: No such file or directory"),
        (["/nowhere", "--follow"], 1, "'/nowhere' cannot be read"),
        (["a", "/"], 1, "'/' cannot be read: Is a directory"),
        (["a", "--ca-file", "/nowhere"], 1, "ca_file must be a file of certificates"),
    ],
)
def test_a_wrong_command_line_is_an_error_in_words(capsys, words, status, text):
    assert main(["push", *words]) == status
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, text",
    [
        (["x.py"], "--push is for the built-in plugin, got 'x.py', too"),
        (["--terminal"], "--push needs the console, got --terminal or --count, too"),
        (["--count", "3"], "--push needs the console"),
    ],
)
def test_a_console_that_takes_pushes_is_that_of_the_built_in_plugin(capsys, words, text):
    assert main(["dev", "--push", *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["a", "--wait", "-1"], ["a", "--format", "xml"]])
def test_a_wrong_option_is_wrong_usage(capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["push", *words])
    assert end.value.code == 2
    capsys.readouterr()
