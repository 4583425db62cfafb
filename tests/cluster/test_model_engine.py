"""The model is an engine as the real ones are."""

import pytest
import pytest_asyncio

from aiostream_ds._cluster.engine import EngineError
from tests.cluster.engine_contract import EngineContract
from tests.cluster.model_engine import ModelEngine, ModelServer

pytestmark = pytest.mark.virtual


class Model:
    too_large = 200_000
    entries = 30
    removes_after = 40

    def __init__(self) -> None:
        self.server = ModelServer(entries=self.entries, largest=self.too_large - 1)
        self.engines: list[ModelEngine] = []

    async def connect(self) -> ModelEngine:
        engine = ModelEngine(self.server, seed=len(self.engines))
        engine.latency = (0.0, 0.002)
        await engine.open()
        self.engines.append(engine)
        return engine

    async def evict(self, channel: str) -> None:
        self.server.evict(channel)


class TestModelEngine(EngineContract):
    @pytest_asyncio.fixture
    async def server(self):
        model = Model()
        yield model
        for engine in model.engines:
            await engine.aclose()

    async def test_without_a_connection_calls_fail(self, a, server):
        server.engines[0].is_cut = True
        with pytest.raises(EngineError):
            await a.members("c")
