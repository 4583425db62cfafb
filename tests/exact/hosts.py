"""Grafana's servers in real time: the Go host with a plugin process, and Grafana's stream manager.

`Node` is a `network.Node`: it runs one RunStream call for each channel with subscribers, calls it
again when it ends, and restarts the plugin's process when it dies.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.conformance.driver import Host, HostError

from .client import CallFailed, History
from .network import Receive
from .packets import Cursor, Message, RunCheck

RESTART_DELAY = 0.1  # seconds until an ended RunStream is called again
NO_LIMIT = 86_400_000  # ms: Grafana, too, waits for packets as long as the call is open
UID = "exact"


class Node:
    """One Grafana server with its plugin process. Made by `open_node`."""

    def __init__(
        self,
        host: Host,
        command: Sequence[str | Path],
        settings: dict[str, Any],
        secrets: dict[str, str] | None = None,
    ) -> None:
        self.checks: list[RunCheck] = []
        self.starts = 0
        self._host, self._command = host, command
        self._settings, self._updated = settings, 1
        self._secrets = secrets or {}
        self._pid = 0
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._receivers: dict[str, dict[Receive, None]] = {}

    async def start(self) -> None:
        self._pid = (await self._host.start(*self._command))["pid"]
        self.starts += 1

    @property
    def pid(self) -> int:
        """The plugin's process."""
        return self._pid

    async def kill(self) -> None:
        """Kill the plugin with `kill -9` and start it again."""
        os.kill(self._pid, signal.SIGKILL)
        await self._host.call("exited", timeout_ms=5_000)
        await self.start()

    async def change_settings(self, settings: dict[str, Any]) -> None:
        """Cancel every stream and call it again with the new settings."""
        self._settings, self._updated = settings, self._updated + 1
        paths = tuple(self._runs)
        await self._cancel()
        for path in paths:
            self._run(path)

    async def close(self) -> None:
        await self._cancel()

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def query(self, query: Message, start: int, end: int, points: int) -> History:
        request = {"refId": "A", "json": {**query, "exact": True}, "queryType": query["queryType"]}
        request |= {"from": start, "to": end, "maxDataPoints": points}
        answer = (await self._call("query", queries=[request]))["responses"]["A"]
        if answer["status"] != 200:
            raise CallFailed(f"query: {answer['status']} {answer['error']}")
        (frame,) = answer["frames"]
        assert "channel" not in frame["meta"]
        fields = frame["fields"]
        columns = [
            list(map(_ms, field["values"]))
            if field["type"].endswith("time.Time")
            else field["values"]
            for field in fields
        ]
        names = tuple(field["name"] for field in fields)
        rows = list(zip(*columns, strict=True))
        return History(names, rows, frame["meta"]["custom"]["cursor"])

    async def rows_after(self, path: str, after: Cursor) -> Message:
        return await self.resource(f"replay/rows?path={quote(path, safe='')}&after={after}")

    async def resource(self, url: str) -> Message:
        """The answer of a resource, from JSON."""
        answer = await self._call("resource", path=url.partition("?")[0], url=url)
        messages = answer["messages"]
        if messages[0]["code"] != 200:
            raise CallFailed(f"{url}: {messages[0]}")
        page: Message = json.loads("".join(message["body"] for message in messages))
        return page

    async def log(self) -> Sequence[Message]:
        """The log lines of the plugin, since its last start."""
        lines: Sequence[Message] = (await self._host.call("logs"))["lines"]
        return lines

    async def subscribe(self, path: str, receive: Receive) -> Message:
        reply = await self._call("subscribe", path=path)
        if reply["status"] != "OK":
            raise CallFailed(f"{path}: {reply['status']}")
        self._receivers.setdefault(path, {})[receive] = None
        self._run(path)
        data: Message = reply["data"]
        return data

    async def publish(self, path: str, data: Any) -> str:
        """The status of the answer."""
        status: str = (await self._call("publish", path=path, data=json.dumps(data)))["status"]
        return status

    def unsubscribe(self, path: str, receive: Receive) -> None:
        self._receivers[path].pop(receive, None)

    def _run(self, path: str) -> None:
        if path not in self._runs:
            self._runs[path] = asyncio.create_task(self._run_repeatedly(path), name=f"run {path}")

    async def _run_repeatedly(self, path: str) -> None:
        number = 0
        while True:
            number += 1
            name = f"{path}#{self._updated}.{self.starts}.{number}"
            with contextlib.suppress(HostError):
                await self._host.call("run", path=path, run=name, ctx=self._context)
                try:
                    await self._forward(path, name)
                finally:
                    with contextlib.suppress(HostError):
                        await self._host.call("cancel", run=name)
            await asyncio.sleep(RESTART_DELAY)

    async def _forward(self, path: str, name: str) -> None:
        check = RunCheck()
        self.checks.append(check)
        ended = False
        while not ended:
            got = await self._host.call("packets", run=name, n=1, timeout_ms=NO_LIMIT)
            ended = got["ended"]
            for packet in got["packets"]:
                if "cursor" in packet:  # packets of a stock channel have none
                    check.check(packet)
                for receive in tuple(self._receivers.get(path, ())):
                    receive(packet)

    async def _cancel(self) -> None:
        tasks = list(self._runs.values())
        self._runs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _context(self) -> dict[str, Any]:
        updated = 1_700_000_000_000 + self._updated
        settings = {"jsonData": self._settings, "secure": self._secrets}
        return {"uid": UID, "updated": updated, **settings}

    async def _call(self, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            return await self._host.call(do, ctx=self._context, **arguments)
        except HostError as error:
            if error.code in ("Host", "Frame", "Packet"):
                raise
            raise CallFailed(str(error)) from error


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


@asynccontextmanager
async def open_node(
    binary: Path,
    command: Sequence[str | Path],
    settings: dict[str, Any],
    secrets: dict[str, str] | None = None,
) -> AsyncIterator[Node]:
    async with Host(binary) as host:
        node = Node(host, command, settings, secrets)
        await node.start()
        try:
            yield node
        finally:
            await node.close()
