"""The engine on a real NATS server, with TLS and a user who may do only what the engine needs."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aiostream_ds._cluster.nats.nats_engine import NatsEngine
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from tests.cluster.engine_contract import EngineContract
from tests.cluster.nats.engines import settings
from tests.servers import Nats

pytestmark = pytest.mark.slow  # a real server


class NatsTestServer:
    """For one test."""

    too_large = 1 << 20
    entries = 30
    removes_after = 40

    def __init__(self, nats: Nats) -> None:
        self.nats = nats
        self.engines: list[NatsEngine] = []

    async def connect(self) -> NatsEngine:
        engine = NatsEngine(settings(self.nats, entries=self.entries))
        await engine.open()
        self.engines.append(engine)
        return engine

    async def evict(self, channel: str) -> None:
        self.nats.purge(Subjects("aiostream-ds").log_of(channel))


class TestNatsEngine(EngineContract):
    @pytest_asyncio.fixture
    async def server(self, nats: Nats) -> AsyncIterator[NatsTestServer]:
        server = NatsTestServer(nats)
        yield server
        for engine in server.engines:
            await engine.aclose()
