"""The rules that every data source keeps."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from aiostream_ds.sources.postgres import Postgres
from aiostream_ds.testing import Grafana
from aiostream_ds.testing.suite import PluginSuite
from tests.servers import Postgres as Server
from tests.sources.numbered_rows import writing

from .support import (
    INSERT,
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

            async def write(number: int) -> None:
                await connection.execute(INSERT, float(number))
                await connection.execute("SELECT pg_notify('news', $1)", f'{{"n": {number}}}')

            async with writing(write), super().serve() as grafana:
                yield grafana
