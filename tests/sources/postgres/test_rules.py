"""The rules that every data source keeps."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.postgres import Postgres
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers import Postgres as Server

from .support import (
    READER_PASSWORD,
    READINGS,
    ROW,
    TABLE,
    empty_database,
    path,
    settings_for,
)
from .test_notifications import channel

PLAIN = "CREATE VIEW plain AS SELECT id, time, n FROM readings"


@pytest.mark.slow
class TestRules(PluginSuite):
    data_source = Postgres
    secrets: ClassVar = {"password": READER_PASSWORD}
    channels: ClassVar = [
        path("readings"),
        path("readings", "site=paris"),
        path("plain"),
        channel("news"),
    ]

    @pytest.fixture(autouse=True)
    def configured(self, server: Server) -> None:
        tables = {
            "readings": {**TABLE, "notify": "news"},
            "plain": {"table": "plain", "poll": 0.1},
        }
        type(self).settings = settings_for(server, tables, channels=["news"])
        self.server = server

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Grafana]:
        async with empty_database(self.server, READINGS, PLAIN, ROW) as connection:

            async def write() -> None:
                number = 0
                while not is_done:
                    await connection.execute("INSERT INTO readings (n) VALUES ($1)", float(number))
                    await connection.execute("SELECT pg_notify('news', $1)", f'{{"n": {number}}}')
                    number += 1
                    await asyncio.sleep(0.02)

            is_done = False
            writing = asyncio.create_task(write())
            try:
                async with super().serve() as grafana:
                    yield grafana
            finally:
                is_done = True
                await writing


def test_another_source_does_not_import_the_client():
    code = """
import sys
from aiostream_ds.sources import builtin_plugin, demo, file
found = [name for name in sys.modules if name.split(".")[0] == "asyncpg"]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)
