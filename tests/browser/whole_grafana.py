"""A whole Grafana server, with the packaged plugin, on a port of its own.

`AIOSTREAM_DS_WHOLE_GRAFANA` is Grafana's home folder, which has `bin/grafana`.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from ..servers.ports import free_port

HOME = os.environ.get("AIOSTREAM_DS_WHOLE_GRAFANA", "")
PLUGIN_ID = "aiostream-ds-datasource"
LOGIN = {"user": "admin", "password": "admin"}
START = 120
"""Seconds until Grafana answers, on a busy machine."""


def version_of(home: Path) -> str:
    """The version of the Grafana in this folder: of a release, or of its source tree."""
    release = home / "VERSION"
    if release.is_file():
        return release.read_text().strip().removeprefix("v")
    return str(json.loads((home / "package.json").read_text())["version"])


_INI = """
[paths]
data = {folder}/data
logs = {folder}/logs
plugins = {folder}/plugins
provisioning = {folder}/provisioning
[server]
http_addr = 127.0.0.1
http_port = {port}
[security]
admin_user = admin
admin_password = admin
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
[plugins]
allow_loading_unsigned_plugins = {plugin}
preinstall_disabled = true
public_key_retrieval_disabled = true
[unified_alerting]
enabled = true
"""


class WholeGrafana:
    """The API of a running Grafana."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer to a call of the API; an error status fails the test."""
        async with self._session.request(method, self.url + path, json=body) as answer:
            text = await answer.text()
            assert answer.status < 400, f"{method} {path}: {answer.status} {text[:500]}"
            return json.loads(text)

    async def until(self, get: Callable[[], Any], seconds: float = 60) -> Any:
        """Call `get` until it has a result that is true."""
        with anyio.fail_after(seconds):
            while not (found := await get()):
                await anyio.sleep(0.2)
        return found


@asynccontextmanager
async def open_grafana(package: Path, folder: Path) -> AsyncIterator[WholeGrafana]:
    """Start Grafana with the plugin in `package` and a data source `demo`, which has its name."""
    for name in ("datasources", "dashboards", "plugins", "alerting"):
        (folder / "provisioning" / name).mkdir(parents=True)
    shutil.copytree(package, folder / "plugins" / PLUGIN_ID)
    port = free_port()
    (folder / "grafana.ini").write_text(_INI.format(folder=folder, port=port, plugin=PLUGIN_ID))
    command = [f"{HOME}/bin/grafana", "server", "--homepath", HOME]
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, "--config", folder / "grafana.ini"],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    credentials = base64.b64encode(b"admin:admin").decode()
    try:
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Basic {credentials}"}
        ) as session:
            grafana = WholeGrafana(f"http://127.0.0.1:{port}", session)

            async def answers() -> bool:
                assert process.poll() is None, (folder / "output.log").read_text()[-2000:]
                try:
                    await grafana.call("GET", "/api/health")
                except aiohttp.ClientError:
                    return False
                return True

            await grafana.until(answers, START)
            settings = {"source": "demo"}
            await grafana.call(
                "POST",
                "/api/datasources",
                {
                    "name": "demo",
                    "uid": "demo",
                    "type": PLUGIN_ID,
                    "access": "proxy",
                    "jsonData": settings,
                },
            )
            yield grafana
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
