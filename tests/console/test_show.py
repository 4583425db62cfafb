"""`show`: the console of a class while a script or a notebook goes on."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest
import websockets

from aiostream_ds import (
    Broadcast,
    ConfigError,
    DataSource,
    NotFound,
    Rows,
    Secret,
    Settings,
    secret,
    show,
)
from aiostream_ds import stream as a_stream

pytestmark = pytest.mark.slow  # a server, and often a process, for each test

EVENTS: list[str] = []
LOSSES = Broadcast(replay=1)


class House(Settings):
    name: str = "one"
    password: Secret = secret()


class Training(DataSource[House]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        EVENTS.append(f"open {self.settings.name} {self.settings.password.reveal()}")
        yield
        EVENTS.append("closed")

    @a_stream
    async def loss(self, run: str = "a") -> Rows:
        try:
            async for row in LOSSES.subscribe():
                yield {**row, "run": run}
        finally:
            EVENTS.append("ended")


@pytest.fixture(autouse=True)
def no_events():
    EVENTS.clear()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=15) as answer:
        return answer.read().decode()


async def first_row(page, path: str = "loss/a") -> dict[str, object]:
    """The first row of a path, as a web page receives it over a WebSocket."""
    address = urlsplit(page.url)
    async with websockets.connect(f"ws://{address.netloc}/live/{path}?{address.query}") as socket:
        async with asyncio.timeout(15):
            while True:
                packet = json.loads(await socket.recv())
                names = [field["name"] for field in packet["schema"]["fields"]]
                values = packet.get("data", {}).get("values", [[]])
                if values[0]:
                    return dict(zip(names, (column[0] for column in values), strict=True))


def test_a_script_shows_rows_that_it_publishes_and_the_page_closes_with_the_block(capsys):
    secrets = {"password": "s3cret"}
    with show(Training, settings={"name": "two"}, secrets=secrets, port=0) as page:
        assert page.is_open and capsys.readouterr().out == f"Console   {page.url}\n"
        LOSSES.publish({"step": 7})
        assert "<html" in get(page.url).lower()
        row = asyncio.run(first_row(page))
        assert (row["step"], row["run"]) == (7, "a")
    assert EVENTS[0] == "open two s3cret" and sorted(EVENTS[1:]) == ["closed", "ended"]
    assert not page.is_open
    with pytest.raises(urllib.error.URLError):
        get(page.url)
    page.close()  # again


async def test_it_works_inside_of_a_running_event_loop_without_await():
    page = show(Training, port=0)
    try:
        LOSSES.publish({"step": 8})
        row = await first_row(page, "loss/b")
        assert (row["step"], row["run"]) == (8, "b")
    finally:
        page.close()


def test_the_page_follows_the_first_path_without_an_argument_or_the_given_one():
    async def hello(page):
        address = urlsplit(page.url)
        async with websockets.connect(f"ws://{address.netloc}/ws") as socket:
            return json.loads(await socket.recv())[0]["hello"]

    with show(Training, port=0) as page:
        found = asyncio.run(hello(page))
        assert (found["path"], found["title"]) == ("loss/a", "Training")
    with show(Training, path="loss/c", port=0) as page:
        assert asyncio.run(hello(page))["path"] == "loss/c"
    with show(Training, path="loss", port=0) as page:
        assert asyncio.run(hello(page))["path"] == "loss/a", "with the default"
    with show(Training, path="loss/{1..3}", port=0) as page:
        assert asyncio.run(hello(page))["path"] == "loss/{1..3}", "the page expands it"


def test_several_consoles_are_open_at_once_on_the_next_free_ports():
    with show(Training) as one, show(Training, settings={"name": "two"}) as two:
        assert one.url != two.url
        assert get(one.url) and get(two.url)
        one.close()
        assert get(two.url)


def test_it_can_be_closed_and_waited_for_from_other_threads():
    page = show(Training, port=0)
    waiting = threading.Thread(target=page.wait)
    waiting.start()
    closing = [threading.Thread(target=page.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    for thread in (*closing, waiting):
        thread.join(10)
        assert not thread.is_alive()
    assert not page.is_open


def test_another_address_than_loopback_needs_the_token_of_the_url():
    with show(Training, host="0.0.0.0", port=0) as page:
        address = urlsplit(page.url)
        assert address.query.startswith("token=")
        plain = f"http://127.0.0.1:{address.port}/"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(plain)
        assert get(f"{plain}?{address.query}")


def test_a_notebook_shows_a_link():
    with show(Training, port=0) as page:
        assert page._repr_html_() == (
            f'<a href="{page.url}" target="_blank" rel="noopener">{page.url}</a>'
        )
        assert repr(page) == f"<Console {page.url}>"
    assert repr(page) == f"<Console {page.url} (closed)>" and "closed" in page._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"settings": {"nmae": "two"}},
            ConfigError,
            r"settings must name those of Training \(name\), got 'nmae'",
        ),
        (
            {"secrets": {"name": "two"}},
            ConfigError,
            r"secrets must name those of Training \(password\), got 'name'",
        ),
        ({"path": "nope"}, NotFound, "a path of the streams 'loss/{run}', got 'nope'"),
        ({"path": "x/loss/a"}, NotFound, "got 'x/loss/a'"),
        ({"port": "a"}, ConfigError, "port must be an integer from 0 to 65535, got 'a'"),
        ({"port": 65_536}, ConfigError, "port must be an integer from 0 to 65535, got 65536"),
        ({"target": object}, TypeError, "expected a DataSource class or a mapping of names"),
        ({"target": Training()}, TypeError, "expected a DataSource class or a mapping of names"),
        ({"target": "module:Class"}, TypeError, "expected a DataSource class or a mapping"),
        ({"target": {"a": Training}, "by": None}, TypeError, "and a setting"),
        (
            {"target": {"a": Training}, "by": "kind", "settings": {"kind": "b"}},
            ConfigError,
            "kind must be one of 'a', got 'b'",
        ),
    ],
)
def test_a_bad_argument_is_an_error_of_the_call(arguments, error, message):
    with pytest.raises(error, match=message):
        show(**{"target": Training, "port": 0, **arguments})


def test_a_port_in_use_is_an_error_of_the_call_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            show(Training, port=port)


def test_settings_that_are_wrong_are_shown_by_the_page():
    with show(Training, settings={"name": [1]}, port=0) as page:

        async def health():
            address = urlsplit(page.url)
            async with websockets.connect(f"ws://{address.netloc}/ws") as socket:
                await socket.send('{"id": 1, "type": "health"}')
                async with asyncio.timeout(15):
                    while True:
                        for message in json.loads(await socket.recv()):
                            if message.get("id") == 1:
                                return message

        assert "name: expected str, got [1]" in asyncio.run(health())["message"]


def test_a_missing_package_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiostream_ds.console.web_server", None)
    with pytest.raises(ModuleNotFoundError, match=r"run: pip install .*\[console\]"):
        show(Training)


@pytest.mark.slow
def test_an_error_in_a_stream_is_in_the_terminal_too(tmp_path):
    (tmp_path / "broken.py").write_text(
        "import logging, sys, urllib.request\n"
        "from aiostream_ds import DataSource, show, stream\n"
        "class Broken(DataSource):\n"
        "    @stream\n"
        "    async def rows(self):\n"
        "        yield {'n': 1}\n"
        "        raise ValueError('mine')\n"
        "with show(Broken, port=0) as page:\n"
        "    urllib.request.urlopen(page.url + 'live/rows').read(300)\n"
        "    logging.getLogger('own').warning('of the script')\n"
        "assert not logging.getLogger().handlers\n"
    )
    run = subprocess.run(
        [sys.executable, "broken.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0
    assert "ValueError: mine" in run.stderr and "of the script" in run.stderr


SCRIPT = """
import anyio, sys, threading
from contextlib import asynccontextmanager
from aiostream_ds import DataSource, show, stream

class Source(DataSource):
    @asynccontextmanager
    async def lifespan(self):
        yield
        await anyio.to_thread.run_sync(lambda: print("closed in a thread", flush=True))

    @stream
    async def numbers(self):
        try:
            yield {"n": 1}
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(0.01)
            print("ended", flush=True)

page = show(Source, port=0)
"""


def start(tmp_path, end: str) -> subprocess.Popen[str]:
    (tmp_path / "script.py").write_text(SCRIPT + textwrap.dedent(end))
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def follow_and_finish(run: subprocess.Popen[str], finish) -> tuple[str, str]:
    """Follow the stream, then end the script in a way; what it printed after its address."""
    assert run.stdout is not None
    address = run.stdout.readline().split()[-1]

    async def follow() -> None:
        page = urlsplit(address)
        async with websockets.connect(f"ws://{page.netloc}/live/numbers") as socket:
            await socket.recv()
            finish()
            with anyio.move_on_after(15):
                await socket.wait_closed()

    asyncio.run(follow())
    return run.communicate(timeout=30)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("sys.stdin.readline()", 0, ""),
        ("sys.stdin.readline(); raise ValueError('mine')", 1, "ValueError: mine"),
        ("sys.stdin.readline(); sys.exit(3)", 3, ""),
        ("with page: sys.stdin.readline()", 0, ""),
        ("import asyncio; asyncio.run(asyncio.to_thread(sys.stdin.readline))", 0, ""),
    ],
)
def test_the_end_of_a_program_ends_streams_and_lifespans_in_order(tmp_path, end, code, error):
    run = start(tmp_path, end)
    out, err = follow_and_finish(run, lambda: (run.stdin.write("\n"), run.stdin.flush()))
    assert out.split("\n") == ["ended", "closed in a thread", ""]
    assert run.returncode == code
    assert error in err and ("Traceback" in err) is bool(error), err


@pytest.mark.slow
def test_wait_keeps_a_script_running_until_ctrl_c(tmp_path):
    run = start(tmp_path, "page.wait()\nprint('after')")
    out, err = follow_and_finish(run, lambda: run.send_signal(signal.SIGINT))
    assert out.split("\n") == ["ended", "closed in a thread", "after", ""]
    assert (run.returncode, err) == (0, "")


def test_what_the_class_raises_while_it_opens_is_an_error_of_the_call(monkeypatch):
    def describe(catalog):
        raise RuntimeError("mine")

    monkeypatch.setattr("aiostream_ds.console.hub.describe", describe)
    with pytest.raises(RuntimeError, match="mine"):
        show(Training, port=0)
    assert not [each for each in threading.enumerate() if each.name == "aiostream-ds console"]
