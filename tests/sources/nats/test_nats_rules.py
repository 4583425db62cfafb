"""The rules that every data source keeps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.nats import Nats as Source
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers import Nats
from tests.sources.numbered_rows import writing

from .connecting import NatsToRead, messages_of, publishing, settings_for, subjects_of


@pytest.mark.slow
class TestRules(PluginSuite):
    data_source = Source
    secrets: ClassVar = {"password": Nats.user_password}
    channels: ClassVar = [
        messages_of(),
        messages_of("ORDERS", "orders.{region}"),
        subjects_of("home.hall"),
        subjects_of("home.*"),
    ]

    @pytest.fixture(autouse=True)
    def configured(self, server: NatsToRead) -> None:
        type(self).settings = settings_for(server)
        self.server = server

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Grafana]:
        async with publishing(self.server) as publisher:

            async def write(number: int) -> None:
                await publisher.store(number)
                await publisher.publish("home.hall", {"n": number})

            async with writing(write), super().serve() as grafana:
                yield grafana
