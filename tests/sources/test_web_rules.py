"""The sources `http` and `websocket` keep the rules of every data source."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.http import Http
from aiostream_ds.sources.websocket import WebSocket
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers.web import EventServer, SocketServer, WebServer
from tests.sources.numbered_rows import writing


class Publishing(PluginSuite):
    """A suite with a server that sends a message every 20 ms."""

    server: ClassVar[WebServer]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Grafana]:
        async def write(number: int) -> None:
            self.server.publish([json.dumps({"n": number, "k": "a"})])

        async with writing(write), super().serve() as grafana:
            yield grafana


@pytest.mark.slow
class TestHttp(Publishing):
    data_source = Http
    channels: ClassVar = ["messages/c3Nl/-", "messages/bGluZXM/-"]

    @pytest.fixture(autouse=True)
    def configured(self) -> Iterator[None]:
        with EventServer() as server:
            url = f"http://127.0.0.1:{server.port}/{{kind}}"
            type(self).settings = {"url": url, "proxy": "none", "testParameters": "sse"}
            type(self).server = server
            yield


class WithSocket(Publishing):
    data_source = WebSocket
    more: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def configured(self) -> Iterator[None]:
        with SocketServer() as server:
            url = f"ws://127.0.0.1:{server.port}/"
            type(self).settings = {"url": url, "proxy": "none", **self.more}
            type(self).server = server
            yield


@pytest.mark.slow
class TestSocket(WithSocket):
    channels: ClassVar = ["messages/-"]


@pytest.mark.slow
class TestSharedSocket(WithSocket):
    channels: ClassVar = ["messages/-", "messages/YQ"]
    more: ClassVar = {"messageKey": "$.k"}
