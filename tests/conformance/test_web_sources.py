"""The sources `http` and `websocket` in the built-in plugin's process, under the Go host."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Proxy, certificates
from tests.servers.web import EventServer, SocketServer
from tests.sources.outage_run import run_outages

from .driver import Host

pytestmark = [pytest.mark.go, pytest.mark.slow, pytest.mark.timeout(120)]

BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"
TOKEN = "sesame-0123456789"
TLS = certificates()


def rows(*numbers: int) -> list[str]:
    return [json.dumps({"n": n}) for n in numbers]


class Panel:
    """The numbers that a stream has sent, read all the time."""

    def __init__(self, host: Host) -> None:
        self.numbers: list[int] = []
        self._task = asyncio.create_task(self._read(host))

    async def _read(self, host: Host) -> None:
        while True:
            for frame in await host.frames("run", 1, timeout_ms=60_000):
                for field in frame["fields"]:
                    if field["name"] == "n":
                        self.numbers += [int(value) for value in field["values"]]

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def context(url: str, source: str, **settings: Any) -> dict[str, Any]:
    return {
        "jsonData": {"source": source, "url": url, "caCertificate": TLS.ca, "proxy": "none"}
        | settings,
        "secure": {"token": TOKEN},
    }


async def test_events_survive_outages_in_the_plugins_process(host_binary: Path) -> None:
    async def write(numbers: Sequence[int]) -> Sequence[int]:
        server.publish(rows(*numbers))
        return numbers

    with EventServer(tls=TLS.server) as server, Proxy(server.port) as proxy:
        server.token = TOKEN
        ctx = context(f"https://127.0.0.1:{proxy.port}/sse", "http", idleTimeout=10)
        async with Host(host_binary) as host:
            await host.start(sys.executable, "-c", BUILTIN, env=dict(os.environ))
            await host.call("run", path="messages/-/-", run="run", ctx=ctx)
            panel = Panel(host)
            outcome = await run_outages(write, lambda: panel.numbers, server.restart, proxy)
            await panel.close()
            logs = json.dumps(await host.call("logs"))
    assert outcome.written == 20_000 and outcome.is_exact, outcome
    assert "the connection was lost during the answer" in logs and TOKEN not in logs


async def test_a_websocket_has_rows_and_a_wrong_token_is_refused(host_binary: Path) -> None:
    with SocketServer(tls=TLS.server) as server:
        server.token = TOKEN
        ctx = context(f"wss://127.0.0.1:{server.port}/", "websocket")
        async with Host(host_binary) as host:
            await host.start(sys.executable, "-c", BUILTIN, env=dict(os.environ))
            await host.call("run", path="messages/-", run="run", ctx=ctx)
            panel = Panel(host)
            while not server.clients:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            server.publish(rows(1, 2))
            while panel.numbers != [1, 2]:
                await asyncio.sleep(0.01)
            await panel.close()
            health = await host.call("health", ctx=ctx)
            assert health["status"] == "OK" and "is connected" in health["message"]
            assert "event times" in json.dumps(health["details"])
            wrong = {**ctx, "secure": {"token": "wrong-0123456789"}, "uid": "other"}
            health = await host.call("health", ctx=wrong)
            assert health["status"] == "ERROR" and "401 Unauthorized" in health["message"]
            assert "wrong-0123456789" not in json.dumps(await host.call("logs"))
