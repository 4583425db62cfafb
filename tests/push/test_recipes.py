"""The recipes of docs/push.md with the real clients and the real source.

`<!-- recipe: NAME -->` above a block names it. Only addresses are replaced, and a file is provided.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import anyio
import pytest
import websockets.sync.client

from tests.requirements import require
from tests.waiting import until

from .console_process import ConsoleProcess, stored_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "push.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^<!-- recipe: (\w+) -->\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def rows(folder):
    """Runs every recipe once, in one console; what was stored by path."""
    console = ConsoleProcess(folder / "pushed")
    with console:
        for name in RECIPES:
            run(name, console, folder)

    async def read():
        return {path: await stored_rows(folder / "pushed", path) for path in PATHS}

    return anyio.run(read)


PATHS = (
    "lab/run-1 lab/run-2 lab/run-3 lab/app train/linear lab/climate host/load device/esp-1"
    " telegraf otel from-grafana"
).split()


def run(name, console, folder):
    code = RECIPES[name]
    if name == "grafana":
        code = code.replace("https://grafana.example.org", console.url).replace("UID", "local")
        code = code.replace("lab/run-1", "from-grafana")
    code = code.replace("http://localhost:3030", console.url).replace(
        ", 3030,", f", {console.port},"
    )
    if name in SPECIAL:
        SPECIAL[name](code, console, folder)
    elif code.startswith("curl"):
        assert '"taken":1' in shell(code, console, folder)
    else:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=folder
        )
        assert (done.returncode, done.stderr) == (0, ""), name
        assert name != "device" or "200 OK" in done.stdout


def shell(code, console, folder, **options):
    require("curl", subprocess.run(["which", "curl"], capture_output=True).returncode == 0, "curl")
    done = subprocess.run(
        ["bash", "-c", code],
        **{"capture_output": True, "text": True, "timeout": 30, "cwd": folder, **options},
        env=environment(console),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(console):
    return {
        **os.environ,
        "AIOSTREAM_DS_PUSH_URL": console.url,
        "TOKEN": "glsa_x",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def pipe(code, console, folder):
    (folder / "train.py").write_text(
        "print('starting')\n"
        "for step in range(3):\n    print(f'step={step} loss={1 / (step + 1)}')\n"
    )
    assert shell(code, console, folder).startswith("starting\nstep=0 loss=1.0\n")


def follow(code, console, folder):
    file = folder / "app.ndjson"
    file.write_text('{"n": 1}\n')
    process = subprocess.Popen(
        code.split(), cwd=folder, env=environment(console), stderr=subprocess.PIPE, text=True
    )
    anyio.run(until, lambda: console_has(console, "lab/app"))
    with file.open("a") as more:
        more.write('{"n": 2}\n')
    process.send_signal(signal.SIGINT)
    assert "2 rows taken" in process.communicate(timeout=20)[1]


def console_has(console, path):
    """Whether a path has rows: pages are sent it then."""
    url = console.url.replace("http", "ws") + "/ws"
    with websockets.sync.client.connect(url) as page:
        found = [message.get("pushed", []) for message in json.loads(page.recv())]
    return f"rows/{path}" in [each for paths in found for each in paths]


def loop(code, console, folder):
    assert "sleep 1\n" in code
    process = subprocess.Popen(
        ["bash", "-c", code.replace("sleep 1\n", "sleep 0.1\n")],
        cwd=folder,
        env=environment(console),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    anyio.run(until, lambda: console_has(console, "host/load"))
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C is for the whole pipeline
    assert "rows taken" in process.communicate(timeout=20)[1]


POINTS = b"cpu,host=a,cpu=cpu0 usage_idle=98.5,usage_user=1.2 %d\nmem,host=a used=5i %d\n"


def telegraf(code, console, folder):
    """The bytes of Telegraf's output http: a batch of points with nanoseconds, in gzip."""
    (output,) = tomllib.loads(code)["outputs"]["http"]
    assert (output["method"], output["data_format"]) == ("POST", "influx")
    now = time.time_ns()
    request = urllib.request.Request(
        output["url"],
        gzip.compress(POINTS % (now, now)),
        {
            "User-Agent": "Telegraf/1.36.3 Go/1.25.3",
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Encoding": output["content_encoding"],
            **output["headers"],
        },
        method=output["method"],
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


SPECIAL = {"pipe": pipe, "follow": follow, "loop": loop, "telegraf": telegraf}


def test_every_recipe_of_the_page_is_run():
    assert {
        *SPECIAL,
        "curl",
        "grafana",
        "python",
        "asyncio",
        "training",
        "pandas",
        "device",
        "otlp",
    } == (RECIPES.keys())


def column(rows, path, name):
    return [row[name] for row in rows[path] if name in row]


def test_the_recipes_store_their_rows(rows):
    assert column(rows, "from-grafana", "loss") == [0.1]
    assert column(rows, "lab/run-1", "loss")[0] == 0.1  # curl's, then those of Python
    assert column(rows, "lab/run-1", "step") == [*range(100)]
    assert column(rows, "lab/run-2", "step") == [*range(100)]
    assert column(rows, "lab/run-3", "loss") == [1.0, 0.5, pytest.approx(1 / 3)]
    assert column(rows, "lab/app", "n") == [1, 2]
    assert len(rows["train/linear"]) == 50
    losses = column(rows, "train/linear", "loss")
    assert losses == sorted(losses, reverse=True)
    assert column(rows, "lab/climate", "percent") == [*range(3600)]
    times = column(rows, "lab/climate", "time")
    assert times[-1] - times[0] == 3_599_000
    assert rows["host/load"] and all(value >= 0 for value in column(rows, "host/load", "load"))
    assert column(rows, "device/esp-1", "celsius") == [21.5]
    assert column(rows, "telegraf", "usage_idle") == [98.5]
    assert column(rows, "telegraf", "used") == [5]
    assert 3 in [value for row in rows["otel"] for value in row.values()]
