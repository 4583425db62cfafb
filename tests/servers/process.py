"""A server process that tests start, stop, kill and start again."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

from tests.requirements import require

from .certificates import Certificate, certificates
from .ports import free_port

_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/lib/postgresql/*/bin")
"""Where Debian installs servers that are not in everybody's PATH."""

START_TIMEOUT = 30.0
"""Seconds in which a server must answer."""

ANSWER_TIMEOUT = 10.0
"""Seconds for one answer of a server that runs, on a busy machine."""


class Server(ABC):
    """A server on 127.0.0.1. As a context manager it runs, and is stopped at the end."""

    program: ClassVar[str]
    """The executable; its name is also the requirement's (see tests/requirements.py)."""

    def __init__(self, tls: Certificate | None = None, client_ca: str | None = None) -> None:
        """With ``tls`` the server accepts TLS only; with ``client_ca`` it demands a client's
        certificate that this CA has signed. Both may be replaced before `start` or `restart`.
        """
        self.tls = tls
        self.client_ca = client_ca
        self.binary = find(self.program)
        # not pytest's, which only its own user can enter
        self._temporary = TemporaryDirectory(prefix=f"{self.program}-")
        self.folder = Path(self._temporary.name)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.prepare()

    def prepare(self) -> None:  # noqa: B027
        """Write what the server needs before its first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server takes clients; raises OSError if it does not listen."""

    def owner(self) -> dict[str, Any]:
        """The user who runs the server, as arguments of `subprocess`; {} for the tests' user."""
        return {}

    @property
    def certificate_file(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / "server.key"

    @property
    def client_ca_file(self) -> Path:
        return self.folder / "client_ca.pem"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def start(self) -> None:
        if self.tls is not None:
            self._write(self.certificate_file, self.tls.certificate)
            self._write(self.key_file, self.tls.key)
        if self.client_ca is not None:
            self._write(self.client_ca_file, self.client_ca)
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.owner()
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program} did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server and wait for it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_TIMEOUT)

    def kill(self) -> None:
        """End the server without a word to its clients."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._temporary.cleanup()

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.answers()
        return False

    def connect(self) -> socket.socket:
        """A connection, with TLS if the server has it."""
        connection = self.connect_plain()
        return connection if self.tls is None else self._context().wrap_socket(connection)

    def connect_plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_TIMEOUT)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False  # `answers` asks whether the server runs, not who it is
        context.verify_mode = ssl.CERT_NONE
        if self.client_ca is not None:
            pair = self.folder / "client.pem"
            pair.write_text(certificates().client.certificate + certificates().client.key, "utf-8")
            context.load_cert_chain(pair)
        return context

    def _write(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(text, "utf-8")
        if "user" in self.owner():
            shutil.chown(path, self.owner()["user"])


def find(program: str) -> str:
    """The path of a server's executable; skips the test if it is not installed."""
    folders = [str(path) for each in _SYSTEM_FOLDERS for path in Path("/").glob(each[1:])]
    folders.append(str(Path(sys.executable).parent))  # servers that are Python packages
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
    require(program, found is not None, f"{program} is not installed; see scripts/servers")
    assert found is not None
    return found
