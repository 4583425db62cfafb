"""The engine on a real NATS server, with TLS and a user who may do only what the engine needs."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest
import pytest_asyncio

from aiostream_ds._cluster.nats.nats_engine import NatsEngine
from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from tests.cluster.engine_contract import EngineContract
from tests.servers import Nats, certificates
from tests.servers.nats import client_context

pytestmark = pytest.mark.slow  # a real server


@pytest.fixture(scope="module")
def nats() -> Iterator[Nats]:
    with Nats(tls=certificates().server) as server:
        yield server


class NatsTestServer:
    """For one test: the streams are purged before."""

    too_large = 1 << 20
    entries = 30
    removes_after = 40

    def __init__(self, nats: Nats) -> None:
        self.nats = nats
        self.engines: list[NatsEngine] = []

    async def connect(self) -> NatsEngine:
        settings = NatsEngineSettings(self.nats.url, tls=client_context(), entries=self.entries)
        engine = NatsEngine(settings)
        await engine.open()
        self.engines.append(engine)
        return engine

    async def evict(self, channel: str) -> None:
        self.nats.purge(Subjects("aiostream-ds").log_of(channel))


class TestNatsEngine(EngineContract):
    @pytest_asyncio.fixture
    async def server(self, nats: Nats) -> AsyncIterator[NatsTestServer]:
        nats.purge()
        server = NatsTestServer(nats)
        yield server
        for engine in server.engines:
            await engine.aclose()
