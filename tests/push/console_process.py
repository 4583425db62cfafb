"""`aiostream-ds dev --push` as a process, which is killed and started again on its port."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from aiostream_ds.stores import SqliteStore
from tests.servers.ports import free_port

_MAIN = "import sys; from aiostream_ds.cli import main; sys.exit(main())"
_START_TIMEOUT = 30.0


class ConsoleProcess:
    """As a context manager it runs. Rows are kept in `directory`, or in memory without one."""

    def __init__(self, directory: Path | None = None, *settings: str) -> None:
        self.port = free_port()
        self.directory = directory
        self.printed = ""
        words = ["dev", "--push", "--no-browser", "--port", str(self.port)]
        if directory is not None:
            settings = (f"directory={directory}", *settings)
        for each in settings:
            words += ["--set", each]
        self._command = [sys.executable, "-uc", _MAIN, *words]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self._folder()
        )
        self._process, self.printed = process, ""
        assert process.stdout is not None
        deadline = time.monotonic() + _START_TIMEOUT
        while "Plugin" not in self.printed:
            ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
            data = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not data:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"the console did not start: {self.printed}")
            self.printed += data.decode()

    def stop(self, number: int = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _folder(self) -> Path:
        """Not the checkout, which has a plugin.json."""
        return self.directory.parent if self.directory is not None else Path("/")


async def stored_rows(directory: Path, path: str) -> list[dict[str, Any]]:
    """The rows of a path that a console, which has ended, has kept."""
    async with SqliteStore(str(directory), name="push-1-local") as store:
        rows: list[dict[str, Any]] = []
        while True:
            part = await store.rows_after(path, rows[-1]["cursor"] if rows else 0, 10_000)
            if not part.rows:
                return rows
            rows += part.rows
