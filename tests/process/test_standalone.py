"""The two files with which a running Grafana finds a process under a debugger."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from aiostream_ds import DataSource, stream
from aiostream_ds._grafana.application import open_application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._process import standalone
from aiostream_ds._process.runtime import serve_application
from aiostream_ds._process.standalone import (
    address_variable,
    announced,
    plugin_id,
    standalone_address,
)
from aiostream_ds._process.standalone_socket import SOCKET_FILE, bind_standalone, network_of
from aiostream_ds.errors import ConfigError

EXITED = 2**22 + 1  # above Linux's largest pid


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plugin.json").write_text('{"id": "my-lamps-datasource"}')
    return tmp_path


def test_the_id_is_that_of_plugin_json(folder):
    assert plugin_id(folder) == "my-lamps-datasource"


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", "7"])
def test_without_a_readable_plugin_json_there_is_no_id(tmp_path, text):
    if text is not None:
        (tmp_path / "plugin.json").write_text(text)
    assert plugin_id(tmp_path) == ""


def test_the_variable_is_named_as_in_the_go_sdk():
    assert address_variable("my-lamps-datasource") == "GF_PLUGIN_GRPC_ADDRESS_MY_LAMPS_DATASOURCE"


def test_the_variable_has_priority_over_the_files(folder):
    (folder / "standalone.txt").write_text("127.0.0.1:1")
    environ = {address_variable("my-lamps-datasource"): "127.0.0.1:2"}
    assert standalone_address(environ, folder) == "127.0.0.1:2"


@pytest.mark.parametrize(
    "pid, found",
    [(None, "127.0.0.1:1"), (os.getpid(), "127.0.0.1:1"), (EXITED, ""), ("x", "127.0.0.1:1")],
    ids=["no file", "running", "exited", "not a number"],
)
def test_an_address_is_used_while_its_process_runs(folder, pid, found):
    (folder / "standalone.txt").write_text("127.0.0.1:1\n")
    if pid is not None:
        (folder / "pid.txt").write_text(str(pid))
    assert standalone_address({}, folder) == found


def test_without_files_there_is_no_standalone_address(folder):
    assert standalone_address({}, folder) == ""


def test_the_files_exist_while_announced_and_only_the_owner_can_read_them(folder):
    with announced(folder, "127.0.0.1:5"):
        for name, text in (("standalone.txt", "127.0.0.1:5"), ("pid.txt", str(os.getpid()))):
            assert (folder / name).read_text() == text
            assert (folder / name).stat().st_mode & 0o777 == 0o600
        assert standalone_address({}, folder) == "127.0.0.1:5"
    assert sorted(os.listdir(folder)) == ["plugin.json"]


def test_files_that_another_process_has_replaced_are_not_removed(folder):
    with announced(folder, "127.0.0.1:5"):
        (folder / "pid.txt").write_text("1")
    assert (folder / "standalone.txt").exists()


@pytest.mark.parametrize("name", ["standalone.txt", "pid.txt"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_planted_link_is_refused_and_its_target_is_not_written(folder, name, exists):
    target = folder / "target"
    if exists:
        target.write_text("precious")
    (folder / name).symlink_to(target)
    with (
        pytest.raises(ConfigError, match=f"{name} must be a file, got a link to"),
        announced(folder, "127.0.0.1:5"),
    ):
        pytest.fail("expected an error")
    assert target.read_text() == "precious" if exists else not target.exists()


def test_a_planted_hard_link_is_replaced(folder):
    (folder / "target").write_text("precious")
    (folder / "standalone.txt").hardlink_to(folder / "target")
    with announced(folder, "127.0.0.1:5"):
        assert (folder / "target").read_text() == "precious"


def test_only_the_developer_can_connect_unless_an_address_is_configured(folder):
    for directory in (folder, None):
        bound, address, close = bind_standalone("", directory)
        path = Path(address)
        assert network_of(address) == "unix" and bound.family == socket.AF_UNIX
        assert path.stat().st_mode & 0o777 == 0o600
        assert (path.parent == folder) == (directory == folder)
        close(), bound.close()
        assert not path.exists()
    bound, address, close = bind_standalone("127.0.0.1:0", folder)
    assert network_of(address) == "tcp" and address.startswith("127.0.0.1:")
    close(), bound.close()


def test_the_socket_of_a_killed_process_is_replaced_and_other_files_are_not(folder):
    first = bind_standalone("", folder)
    second = bind_standalone("", folder)
    first.close()  # it does not remove the socket of the second
    assert Path(second.address).is_socket() and second.address == first.address
    second.close()
    (folder / SOCKET_FILE).write_text("precious")
    other = bind_standalone("", folder)
    assert Path(other.address).parent != folder
    other.close()
    first.socket.close(), second.socket.close()
    assert (folder / SOCKET_FILE).read_text() == "precious"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["gpx_lamps", "start.py"], ids=["executable", "package"])
def test_only_the_process_that_grafana_has_started_is_stopped(folder, name):
    program = folder / name
    program.write_text("import sys, time; print(flush=True); time.sleep(60)")
    # as a launcher starts it: some arguments before the program
    command = [sys.executable, "-X", "utf8", "-B", str(program)]
    managed = {**os.environ, "grafana_plugin_type": "datasource"}
    own = {k: v for k, v in os.environ.items() if k != "grafana_plugin_type"}
    with (
        subprocess.Popen(command, env=managed, stdout=subprocess.PIPE) as started,
        subprocess.Popen(command, env=own, stdout=subprocess.PIPE) as other,
    ):
        try:
            started.stdout.readline(), other.stdout.readline()
            standalone._stop_managed_process(folder)
            assert started.wait(15) == -signal.SIGTERM
            assert other.poll() is None
        finally:
            started.kill(), other.kill()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the host is found by its process id")
@pytest.mark.parametrize("end", ["kill", "remove", "replace"])
def test_the_process_that_grafana_has_started_ends_with_the_standalone_one(folder, end):
    program = folder / "lamps.py"
    program.write_text(
        "from aiostream_ds import DataSource, serve\n\n"
        "class Lamps(DataSource):\n    pass\n\nserve(Lamps)\n"
    )
    environ = {
        **os.environ,
        "grafana_plugin_type": "datasource",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
    }
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (folder / "standalone.txt").write_text("127.0.0.1:5")
        (folder / "pid.txt").write_text(str(other.pid))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, str(program)], env=environ, **pipes) as started:
            assert "127.0.0.1:5" in started.stdout.readline()
            assert "the plugin runs standalone" in started.stderr.readline()
            assert started.poll() is None
            if end == "kill":
                other.kill()
                other.wait()
            elif end == "remove":
                (folder / "standalone.txt").unlink()
            else:
                (folder / "standalone.txt").write_text("127.0.0.1:6")
            assert started.wait(15) == 0
            assert not started.stderr.read()
        other.kill()


@pytest.mark.slow
def test_a_port_alone_is_served_on_all_interfaces(tmp_path):
    # as Go and Docker read it; the warning about an open network is then true
    file = tmp_path / "lamps.py"
    file.write_text("from aiostream_ds import DataSource\n\nclass Lamps(DataSource):\n    pass\n")
    code = "import sys; from aiostream_ds.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "run", str(file), "--listen", ":0"]
    with subprocess.Popen(words, text=True, stderr=subprocess.PIPE) as process:
        lines = [process.stderr.readline()]
        while "serving on" not in lines[-1]:
            assert lines[-1], lines
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
    assert "serving on 0.0.0.0:" in lines[-1]
    assert any("is not encrypted" in line for line in lines)


async def test_the_server_ends_with_an_error_when_the_work_is_cancelled_for_which_it_runs():
    """As code that cancels all tasks."""

    class Empty(DataSource):
        @stream("none")
        async def none(self):
            yield {"n": 1}

    async def work(address):
        raise asyncio.CancelledError

    async with open_application(Catalog(Empty)) as application:
        with anyio.fail_after(15), pytest.raises(RuntimeError, match="cancelled itself"):
            await serve_application(application, None, work)
