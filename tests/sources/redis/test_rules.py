"""The rules that every data source keeps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers import Redis
from tests.sources.numbered_rows import writing

from .connecting import admin, encoded, settings_for, until


@pytest.mark.slow
class TestRules(PluginSuite):
    data_source = Source
    secrets: ClassVar = {"password": Redis.reader_password}
    channels: ClassVar = [
        f"entries/{encoded('orders:eu')}",
        f"streams/{encoded('orders:*')}",
        f"channel/{encoded('news')}",
        f"pattern/{encoded('n*')}",
    ]

    @pytest.fixture(autouse=True)
    def configured(self, server: Redis) -> None:
        type(self).settings = settings_for(server)
        self.server = server

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Grafana]:
        async with admin(self.server) as client:
            await client.flushall()

            async def write(number: int) -> None:
                await client.xadd("orders:eu", {"n": number})
                await client.publish("news", f'{{"n": {number}}}')

            async with writing(write):
                await until(lambda: client.exists("orders:eu"))
                async with super().serve() as grafana:
                    yield grafana
