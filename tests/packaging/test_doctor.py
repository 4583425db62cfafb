"""`aiostream-ds doctor`: every cause is produced, and found."""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aiostream_ds.packaging.diagnosis import CURES

from ..conformance.driver import Host, HostError
from ..requirements import require
from .conftest import MAIN, ROOT, Package, launcher_in

pytestmark = [pytest.mark.package, pytest.mark.timeout(300)]

IDENTIFIER = "local-plant-datasource"


@pytest.fixture(scope="session")
def small(package: Package, author: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that uses this test's Python."""
    out = tmp_path_factory.mktemp("small")
    package(author, "-o", out, "--runtime", "host", "--no-zip", "--include", author.parent / "data")
    return out / IDENTIFIER


@pytest.fixture
def folder(small: Path, tmp_path: Path) -> Path:
    """The package, installed."""
    return shutil.copytree(small, tmp_path / "plugins" / IDENTIFIER)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A grafana.ini that allows the plugin, and sets this Python."""
    path = tmp_path / "grafana.ini"
    path.write_text(
        f"app_mode = production\n[plugins]\nallow_loading_unsigned_plugins = a, {IDENTIFIER}\n"
        f"[server]\nroot_url = https://example.org/grafana/\n"
        f"[plugin.{IDENTIFIER}]\npython = {sys.executable}\n"
    )
    return path


Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(folder: Path, config: Path, tmp_path: Path) -> Doctor:
    """Runs the command on the folder; returns its status and output."""
    log = tmp_path / "grafana.log"
    log.touch()

    def run(*words: object) -> tuple[int, str]:
        command = [sys.executable, "-c", MAIN, "doctor", folder, "--config", config, "--log", log]
        done = subprocess.run(
            [*map(str, [*command, *words])], capture_output=True, text=True, check=False, cwd="/"
        )
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout

    return run


def assert_cause(outcome: tuple[int, str], cause: str, message: str = "") -> None:
    """The output has a line with this cause and message, and its cure in the next line."""
    status, text = outcome
    lines = text.splitlines()
    assert status == 1, text
    found = next(
        (n for n, line in enumerate(lines) if line.startswith(f"error    {cause}: ")), None
    )
    assert found is not None, text
    assert message in lines[found], text
    assert lines[found + 1].strip().startswith("cure: "), text


def closed_port() -> str:
    """A local address that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return "{}:{}".format(*server.getsockname())


def test_a_good_plugin_is_started(doctor: Doctor) -> None:
    status, text = doctor("--start")
    assert status == 0, text
    for subject in ("machine", "start: handshake", "health", "query numbers/1", "stream numbers/1"):
        assert f"ok       {subject}" in text


def test_architecture_no_executable_for_this_machine(doctor: Doctor, folder: Path) -> None:
    launcher_in(folder).unlink()
    assert_cause(doctor(), "architecture", "gpx_local_plant_linux_arm64")


async def test_architecture_a_program_for_another_machine(
    doctor: Doctor, folder: Path, host_binary: Path, tmp_path: Path
) -> None:
    other = next(p for p in folder.glob("*_linux_arm64") if p != launcher_in(folder))
    shutil.copy(other, launcher_in(folder))
    assert_cause(await asyncio.to_thread(doctor), "architecture", "is for arm64, this machine is")
    async with Host(host_binary) as host:  # and from Grafana's log
        with pytest.raises(HostError) as failed:
            await host.start(launcher_in(folder), env="empty")
    write_log(tmp_path, str(failed.value))
    shutil.copy(launcher_in(folder).with_name("start.py"), launcher_in(folder))
    _, text = await asyncio.to_thread(doctor)
    assert "architecture: Grafana's log has: exec format error" in text or "is for arm64" in text


def write_log(tmp_path: Path, error: str) -> None:
    """Grafana's log about a plugin that did not start."""
    (tmp_path / "grafana.log").write_text(
        'logger=settings t=2026-01-01T00:00:00Z level=info msg="Starting Grafana" version=12.0.0\n'
        f"logger=plugin.backend.start t=2026-01-01T00:00:01Z level=error "
        f'msg="Could not start plugin backend" pluginId={IDENTIFIER} error="{error}"\n'
        'logger=http.server t=2026-01-01T00:00:02Z level=info msg="HTTP Server Listen"\n'
    )


async def test_libc_a_program_with_a_missing_loader(
    doctor: Doctor, folder: Path, host_binary: Path, tmp_path: Path
) -> None:
    program = Path("/bin/true").read_bytes()
    require(
        "package", b"/lib64/ld-linux-x86-64.so.2" in program, "/bin/true is not a glibc program"
    )
    changed = program.replace(b"/lib64/ld-linux-x86-64.so.2", b"/lib64/ld-nowhere-86-64.so.2"[:27])
    launcher_in(folder).write_bytes(changed)
    assert_cause(await asyncio.to_thread(doctor), "libc", "which does not exist")
    async with Host(host_binary) as host:
        with pytest.raises(HostError) as failed:
            await host.start(launcher_in(folder), env="empty")
    write_log(tmp_path, str(failed.value))
    assert_cause(await asyncio.to_thread(doctor), "missing file", "no such file or directory")


async def test_permissions_a_file_that_is_not_executable(
    doctor: Doctor, folder: Path, host_binary: Path, tmp_path: Path
) -> None:
    launcher_in(folder).chmod(0o644)
    assert_cause(await asyncio.to_thread(doctor), "permissions", "its mode is 0644")
    async with Host(host_binary) as host:
        with pytest.raises(HostError) as failed:
            await host.start(launcher_in(folder), env="empty")
    write_log(tmp_path, str(failed.value))
    launcher_in(folder).chmod(0o755)
    assert_cause(await asyncio.to_thread(doctor), "permissions", "Grafana's log has: fork/exec")


def test_permissions_a_folder_that_grafana_may_not_enter(doctor: Doctor, folder: Path) -> None:
    folder.chmod(0o700)
    outcome = doctor("--user", 472)
    assert_cause(outcome, "permissions", "user 472 may not enter")


@pytest.mark.parametrize(("user", "right"), [(472, 0o750), ("nobody", 0o711)])
def test_a_mode_is_checked_for_the_given_user(tmp_path: Path, user: int | str, right: int) -> None:
    from aiostream_ds.packaging.host_checks import find_user

    path = tmp_path / "program"
    path.touch()
    path.chmod(right)
    may = find_user(str(user)).may(path, os.X_OK)
    group = path.stat().st_gid == 0 and user == 472
    assert may == bool(stat.S_IMODE(right) & (0o010 if group else 0o001))


def test_cookie_a_wrapper_clears_the_environment(doctor: Doctor, folder: Path) -> None:
    real = launcher_in(folder)
    wrapped = real.with_name("real")
    real.rename(wrapped)
    real.write_text(f"#!/bin/sh\nexec env -i GF_PLUGIN_PYTHON={sys.executable} {wrapped}\n")
    real.chmod(0o755)
    assert_cause(doctor("--start"), "cookie")


def test_unsigned_if_only_others_are_allowed(doctor: Doctor, config: Path, tmp_path: Path) -> None:
    config.write_text("[plugins]\nallow_loading_unsigned_plugins = other-one-datasource\n")
    assert_cause(doctor(), "unsigned", "Grafana allows only 'other-one-datasource'")
    config.write_text(f"[plugins]\nallow_loading_unsigned_plugins = {IDENTIFIER}\n")
    (tmp_path / "grafana.log").write_text(
        'logger=plugins.signature.validation t=2026-01-01T00:00:00Z level=warn msg="Skipping '
        f'loading plugin due to problem with signature" pluginId={IDENTIFIER} status=unsigned\n'
    )
    assert_cause(doctor(), "unsigned", "Grafana's log has: status=unsigned")


def test_port_nothing_listens_at_the_plugins_address(doctor: Doctor, folder: Path) -> None:
    address = closed_port()
    (folder / "launch.conf").write_text(
        f"id = {IDENTIFIER}\nruntime = address\naddress = {address}\n"
    )
    assert_cause(doctor(), "port", address)


@pytest.mark.parametrize("pid", [None, "ended", "no number", "9" * 30])
def test_a_stale_address_file(doctor: Doctor, folder: Path, pid: str | None) -> None:
    address = closed_port()
    (folder / "standalone.txt").write_text(address)
    if pid == "ended":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        pid = str(ended.pid)
    if pid is not None:
        (folder / "pid.txt").write_text(pid)
    assert_cause(doctor(), "address file", address)


def sign(folder: Path, **more: object) -> None:
    """Write MANIFEST.txt as Grafana's service does, without a signature."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "MANIFEST.txt"
    }
    body = json.dumps({"manifestVersion": "2.0.0", "plugin": IDENTIFIER, "files": files, **more})
    (folder / "MANIFEST.txt").write_text(
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{body}\n"
        "-----BEGIN PGP SIGNATURE-----\n\nnone\n-----END PGP SIGNATURE-----\n"
    )


def test_modified_after_signing(doctor: Doctor, folder: Path) -> None:
    sign(folder)
    status, text = doctor()
    assert status == 0, text
    (folder / "README.md").write_text("other")
    assert_cause(doctor(), "modified", "README.md was changed after signing")
    sign(folder)
    (folder / "app/__pycache__/new.pyc").touch()
    assert_cause(doctor(), "modified", "new.pyc is not signed")
    sign(folder)
    (folder / "CHANGELOG.md").unlink()
    assert_cause(doctor(), "modified", "CHANGELOG.md is signed but missing")


@pytest.mark.parametrize(
    ("root", "right"),
    [
        ("https://example.org/grafana", True),
        ("https://example.org/", False),
        ("http://example.org/grafana/", False),
        ("https://example.org:443/grafana/", False),
    ],
)
def test_a_private_signature_is_for_one_root_url(
    doctor: Doctor, folder: Path, root: str, right: bool
) -> None:
    sign(folder, signatureType="private", rootUrls=[root])
    status, text = doctor()
    assert (status == 0) == right, text
    if not right:
        assert_cause((status, text), "root url", root)


def test_python_without_the_packages_of_a_plugin_with_runtime_host(
    doctor: Doctor, config: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    config.write_text(
        config.read_text().replace(f"python = {sys.executable}", f"python = {bare}/bin/python")
    )
    assert_cause(doctor("--start"), "python", "lacks the package 'betterproto2'")


def test_incomplete_a_file_of_the_package_is_missing(doctor: Doctor, folder: Path) -> None:
    conf = folder / "launch.conf"
    conf.write_text(
        f"id = {IDENTIFIER}\nruntime = bundled\nplatform = linux/amd64\nloader = rt/lib/ld.so\n"
    )
    assert_cause(doctor(), "incomplete", "rt/lib/ld.so does not exist")


async def test_handshake_something_is_printed_first(doctor: Doctor, folder: Path) -> None:
    launcher_in(folder).write_text("#!/bin/sh\necho hello\nexec sleep 60\n")
    assert_cause(await asyncio.to_thread(doctor, "--start"), "handshake", "hello")


def test_ended_the_output_of_the_process_is_shown(doctor: Doctor, folder: Path) -> None:
    launcher_in(folder).write_text("#!/bin/sh\necho my own reason >&2\nexit 3\n")
    outcome = doctor("--start")
    assert_cause(outcome, "ended")
    assert "my own reason" in outcome[1]


def test_every_cause_has_a_cure_and_is_documented() -> None:
    text = (ROOT / "docs/doctor.md").read_text()
    for cause, cure in CURES.items():
        assert cure
        assert f"`{cause}`" in text, cause


def test_the_executable_runs_the_command_without_an_installed_python(plant: Path) -> None:
    done = subprocess.run(
        [launcher_in(plant), "doctor", "--start"],
        env={},
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok       stream numbers/1" in done.stdout
