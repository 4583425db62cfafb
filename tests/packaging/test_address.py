"""A remote plugin, which Grafana reaches through a package with its address."""

import asyncio
import datetime
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from ..conformance.driver import Host, HostError
from ..requirements import require
from .conftest import MAIN, Package, launcher_in
from .test_package import use

pytestmark = [pytest.mark.package, pytest.mark.timeout(300)]


@asynccontextmanager
async def serving(author: Path, *words: object) -> AsyncIterator[tuple[str, list[str]]]:
    """Runs `aiostream-ds run --listen`; yields its address and its log so far."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAIN, "run", author, "--listen", "127.0.0.1:0"),
        *map(str, words),
        cwd=author.parent,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = []
    try:
        while True:
            line = (await process.stderr.readline()).decode()
            assert line, f"it ended before it served: {log}"
            log.append(line)
            if found := re.search(r"serving on (\S+:\d+)", line):
                break
        yield found[1], log
        assert process.returncode is None, "Shutdown of the host must not stop a remote plugin"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


def address_package(package: Package, author: Path, out: Path, *words: object) -> tuple[Path, str]:
    done = package(author, "-o", out, *words)
    return launcher_in(out / "local-plant-datasource"), done.stderr


async def test_a_remote_plugin_is_used_and_outlives_grafana(
    host_binary: Path, package: Package, author: Path, tmp_path: Path
) -> None:
    async with serving(author) as (address, _):
        launcher, output = address_package(package, author, tmp_path, "--address", address)
        assert f"the connection from Grafana to {address} is not encrypted" in output
        assert not list(launcher.parent.rglob("*.py")), "it contains no Python"
        for _ in range(2):
            async with Host(host_binary) as host:
                started = await host.start(launcher, env="empty")
                assert (started["network"], started["address"]) == ("tcp", address)
                await use(host, "numbers/1", "numbers")
                await logged(host, "not encrypted, including secrets")
                await host.call("stop")


async def test_grafana_ini_overrides_the_address(
    host_binary: Path, package: Package, author: Path, tmp_path: Path
) -> None:
    launcher, _ = address_package(package, author, tmp_path, "--address", "plugin.invalid:10000")
    async with serving(author) as (address, _), Host(host_binary) as host:
        started = await host.start(launcher, env={"GF_PLUGIN_ADDRESS": address})
        assert started["address"] == address
        await use(host, "numbers/1", "numbers")


class Certificates:
    """An authority, and a certificate with its key for the server and for the client."""

    def __init__(self, folder: Path) -> None:
        require("mtls", _has_cryptography(), "the package cryptography is missing")
        self.ca = folder / "ca.pem"
        authority = _key()
        self.ca.write_bytes(_pem(_certificate("authority", authority, "authority", authority)))
        self.cert, self.key = folder / "server.pem", folder / "server-key.pem"
        self.client, self.client_key = folder / "client.pem", folder / "client-key.pem"
        for name, cert, key in (
            ("server", self.cert, self.key),
            ("client", self.client, self.client_key),
        ):
            own = _key()
            cert.write_bytes(_pem(_certificate(name, own, "authority", authority)))
            key.write_bytes(_key_pem(own))


async def logged(host: Host, text: str) -> None:
    """Wait until the launcher has logged it: its log arrives separately from responses."""
    async with asyncio.timeout(30):
        while text not in (await host.call("logs"))["stderr"]:
            await asyncio.sleep(0.05)


async def test_tls_accepts_only_known_clients(
    host_binary: Path, package: Package, author: Path, tmp_path: Path
) -> None:
    have = Certificates(tmp_path)
    tls = ("--tls-cert", have.cert, "--tls-key", have.key, "--tls-client-ca", have.ca)
    async with serving(author, *tls) as (address, log):
        assert not any("not encrypted" in line for line in log)
        launcher, warned = address_package(
            package, author, tmp_path / "out", "--address", address, "--tls-ca", have.ca
        )
        assert "encrypted" not in warned
        client = {"GF_PLUGIN_TLS_CERT": have.client, "GF_PLUGIN_TLS_KEY": have.client_key}
        async with Host(host_binary) as host:
            started = await host.start(launcher, env={k: str(v) for k, v in client.items()})
            assert started["network"] == "unix"
            await use(host, "numbers/1", "numbers")
            assert (await host.call("exited"))["exited"] is False
            await host.call("stop")
        async with Host(host_binary) as host:
            await host.start(launcher, env="empty")
            with pytest.raises(HostError):
                await host.call("health", deadline_ms=5000)
            await logged(host, f"the plugin at {address} ended the connection")


async def test_tls_refuses_an_unknown_server(
    host_binary: Path, package: Package, author: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = Certificates(tmp_path / "one"), Certificates(tmp_path / "two")
    async with serving(author, "--tls-cert", one.cert, "--tls-key", one.key) as (address, _):
        launcher, _ = address_package(
            package, author, tmp_path / "out", "--address", address, "--tls-ca", two.ca
        )
        async with Host(host_binary) as host:
            await host.start(launcher, env="empty")
            with pytest.raises(HostError):
                await host.call("health", deadline_ms=5000)
            await logged(host, f"the plugin at {address} cannot be reached: tls")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "nowhere"], "the address must be HOST:PORT, got 'nowhere'"),
        (
            ["--listen", "127.0.0.1:1", "--tls-cert", "x"],
            "--tls-cert and --tls-key must be used together",
        ),
        (
            ["--listen", "127.0.0.1:0", "--tls-cert", "x", "--tls-key", "y"],
            "expected a certificate and its key in PEM, got x and y",
        ),
        (["--tls-cert", "x", "--tls-key", "y"], "--tls-cert must be used with --listen"),
    ],
)
async def test_a_wrong_option_is_one_sentence(author: Path, words: list[str], message: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MAIN, "run", author, *words),
        cwd=author.parent,
        env={**os.environ},
        stderr=asyncio.subprocess.PIPE,
    )
    _, text = await process.communicate()
    assert process.returncode == 1
    assert message in text.decode()


def _has_cryptography() -> bool:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def _key():
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _certificate(name, key, issuer, issuer_key):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
