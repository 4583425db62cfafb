"""The rules that every data source keeps."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers import Redis

from .connecting import admin, encoded, settings_for


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

            async def write() -> None:
                number = 0
                while not is_done:
                    await client.xadd("orders:eu", {"n": number})
                    await client.publish("news", f'{{"n": {number}}}')
                    number += 1
                    await asyncio.sleep(0.02)

            is_done = False
            writing = asyncio.create_task(write())
            try:
                while not await client.exists("orders:eu"):
                    await asyncio.sleep(0.01)
                async with super().serve() as grafana:
                    yield grafana
            finally:
                is_done = True
                await writing


def test_another_source_does_not_import_the_client():
    code = """
import sys
from aiostream_ds.sources import builtin_plugin, demo, file
found = [name for name in sys.modules if name.split(".")[0] in ("redis", "hiredis")]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)
