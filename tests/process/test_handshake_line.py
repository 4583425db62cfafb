"""The host's environment, the handshake line, the socket, the exit of the parent process."""

import asyncio
import os
import socket
import stat
import sys
import time

import anyio
import pytest

from aiostream_ds._grpc.server import Server
from aiostream_ds._process import handshake
from aiostream_ds._process.handshake import (
    Handshake,
    Listener,
    StartError,
    handshake_line,
    listen,
    read_handshake,
)
from aiostream_ds._process.host_services import host_services
from aiostream_ds._process.parent import POLL_INTERVAL, wait_for_parent_exit

COOKIE = {"grafana_plugin_type": "datasource"}


# -- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [{}, {"grafana_plugin_type": "app"}, {"PATH": "/bin"}])
def test_without_the_cookie_the_message_explains_the_program(environ):
    with pytest.raises(StartError, match="Grafana starts it"):
        read_handshake(environ)


@pytest.mark.parametrize("versions", ["2", "1,2", "3,2", " 2 ", "2,x", ""])
def test_a_host_with_our_protocol_version_is_accepted(versions):
    assert read_handshake({**COOKIE, "PLUGIN_PROTOCOL_VERSIONS": versions}).parent == os.getppid()


@pytest.mark.parametrize("versions", ["1", "3", "1,3", "22", "x"])
def test_a_host_with_other_versions_is_refused_and_both_are_named(versions):
    with pytest.raises(StartError, match=f"must contain 2, got '{versions}';"):
        read_handshake({**COOKIE, "PLUGIN_PROTOCOL_VERSIONS": versions})


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("PLUGIN_CLIENT_CERT", "-----BEGIN", "client_cert", "-----BEGIN"),
        ("PLUGIN_MULTIPLEX_GRPC", "true", "multiplex", True),
        ("PLUGIN_MULTIPLEX_GRPC", "", "multiplex", False),
        ("PLUGIN_UNIX_SOCKET_DIR", "/d", "socket_dir", "/d"),
        ("PLUGIN_UNIX_SOCKET_GROUP", "staff", "socket_group", "staff"),
        ("PLUGIN_MAX_PORT", "25000", "max_port", 25000),
    ],
)
def test_each_variable_is_read(name, value, field, expected):
    assert getattr(read_handshake({**COOKIE, name: value}), field) == expected


@pytest.mark.parametrize(
    ("low", "high"), [("x", "1"), ("-1", "5"), ("1", "70000"), ("9", "8"), ("9", "")]
)
def test_a_bad_port_range_is_refused(low, high):
    with pytest.raises(StartError, match="PLUGIN_M(IN|AX)_PORT must"):
        read_handshake({**COOKIE, "PLUGIN_MIN_PORT": low, "PLUGIN_MAX_PORT": high})


# -- the socket and its line ---------------------------------------------------------------------


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """The directory of temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_the_line_has_six_fields_and_an_empty_certificate_without_tls(temporary):
    listener = Listener(Handshake())
    core, version, network, address, protocol, certificate = listener.line.split("|")
    assert (core, version, network, protocol, certificate) == ("1", "2", "unix", "grpc", "")
    assert address == listener.address
    listener.close()


def test_the_line_of_a_standalone_process_has_no_certificate_field():
    assert handshake_line("tcp", "127.0.0.1:1") == "1|2|tcp|127.0.0.1:1|grpc"


def test_the_line_has_a_seventh_field_only_with_multiplexing(temporary):
    listener = Listener(Handshake(multiplex=True))
    assert listener.line.split("|")[5:] == ["", "false"]
    listener.close()


def test_a_created_directory_is_private_and_is_removed_with_the_socket(temporary):
    listener = Listener(Handshake())
    (directory,) = temporary.iterdir()
    assert directory.name.startswith("plugin")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(listener.address).st_mode) == 0o600
    assert os.path.dirname(listener.address) == str(directory)
    listener.close()
    listener.close()
    assert not list(temporary.iterdir())


def test_the_hosts_directory_is_used_and_not_removed(tmp_path):
    listener = Listener(Handshake(socket_dir=str(tmp_path)))
    assert [str(path) for path in tmp_path.iterdir()] == [listener.address]
    listener.close()
    assert tmp_path.exists()
    assert not list(tmp_path.iterdir())


def test_the_socket_belongs_to_the_hosts_group(tmp_path):
    listener = Listener(Handshake(socket_dir=str(tmp_path), socket_group=str(os.getgid())))
    found = os.stat(listener.address)
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, os.getgid())
    listener.close()


def test_the_group_has_access_to_a_created_directory(temporary):
    listener = Listener(Handshake(socket_group=str(os.getgid())))
    assert stat.S_IMODE(os.stat(os.path.dirname(listener.address)).st_mode) == 0o770
    listener.close()


def test_an_unknown_group_is_refused_and_nothing_remains(temporary):
    with pytest.raises(StartError, match="must be a group of this system, got 'no-such-group'"):
        Listener(Handshake(socket_group="no-such-group"))
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", ["x" * 120, "a|b"])
def test_a_directory_with_an_unusable_path_is_refused(tmp_path, name):
    directory = tmp_path / name
    directory.mkdir()
    with pytest.raises(StartError, match="set PLUGIN_UNIX_SOCKET_DIR"):
        Listener(Handshake(socket_dir=str(directory)))


def test_a_missing_directory_is_refused(tmp_path):
    with pytest.raises(StartError, match="cannot bind a UNIX socket"):
        Listener(Handshake(socket_dir=str(tmp_path / "none")))


def test_a_temporary_directory_with_a_long_path_is_not_used(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    listener = Listener(Handshake())
    assert os.path.exists(listener.address)
    assert not list(long.iterdir())
    listener.close()


def test_without_unix_sockets_the_first_free_port_is_taken(monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with socket.socket(socket.AF_INET) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        listener = Listener(Handshake(min_port=port, max_port=65535))
        assert listener.line.startswith("1|2|tcp|127.0.0.1:")
        assert int(listener.address.partition(":")[2]) > port
        listener.close()
        with pytest.raises(StartError, match=f"from {port} to {port}, got none"):
            Listener(Handshake(min_port=port, max_port=port))


async def test_the_server_listens_at_the_announced_address_after_disconnects(temporary):
    server = Server(host_services(None))
    listener = await listen(server, Handshake())
    for _ in range(2):
        _, writer = await asyncio.open_unix_connection(listener.address)
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    listener.close()


# -- TLS -----------------------------------------------------------------------------------------


def test_tls_without_the_package_cryptography_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(StartError, match=r"pip install .*\[mtls\]"):
        Listener(Handshake(client_cert="-----BEGIN CERTIFICATE-----"))


# -- the parent ----------------------------------------------------------------------------------


async def test_a_parent_that_has_exited_is_noticed_at_once():
    with anyio.fail_after(15):
        await wait_for_parent_exit(os.getppid() + 1)


async def test_a_running_parent_is_waited_for():
    with anyio.move_on_after(0.02) as scope:
        await wait_for_parent_exit(os.getppid())
    assert scope.cancelled_caught


@pytest.mark.virtual
async def test_without_pidfd_the_parent_is_polled(monkeypatch):
    parents = iter([7, 7, 7, 1])
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    start = anyio.current_time()
    await wait_for_parent_exit(7)
    assert anyio.current_time() - start == pytest.approx(3 * POLL_INTERVAL)


def test_the_next_start_removes_the_directory_of_a_killed_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = []

    def directory(number, *, age, listens):
        path = tmp_path / f"plugin{number:016x}"
        path.mkdir(0o700)
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(path / "socket"))
        if listens:
            bound.listen()
            kept.append(bound)
        else:
            bound.close()
        os.utime(path, (time.time() - age,) * 2)
        return path

    killed = directory(1, age=100, listens=False)
    new = directory(2, age=0, listens=False)
    unbound = tmp_path / f"plugin{5:016x}"
    unbound.mkdir()
    os.utime(unbound, (time.time() - 100,) * 2)
    running = directory(3, age=100, listens=True)
    (tmp_path / f"plugin{4:016x}").symlink_to(running)
    (tmp_path / "plugin-of-others").mkdir()
    Listener(Handshake()).close()
    assert (
        not killed.exists()
        and not unbound.exists()
        and new.exists()
        and (running / "socket").exists()
    )
    assert len(list(tmp_path.iterdir())) == 4
    for bound in kept:
        bound.close()


def test_a_long_tmpdir_is_replaced_by_tmp_which_is_cleaned_as_well(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(handshake, "_remove_abandoned", seen.append)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("x" * 100)))
    Listener(Handshake()).close()
    assert seen == ["/tmp"]
