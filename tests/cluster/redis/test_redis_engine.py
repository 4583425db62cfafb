"""The engine of Redis does what every engine has to do: on one server, and in a Redis Cluster."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial

import pytest
import pytest_asyncio

from aiostream_ds._cluster.redis.redis_engine import RedisEngine
from tests.cluster.engine_contract import EngineContract
from tests.servers import Redis, certificates
from tests.servers.redis import redis_cluster

from .engines import EngineClusterNode, EngineRedis, cluster_engine, engine, evict

pytestmark = pytest.mark.slow

BOUNDS = {"entries": 100, "log_bytes": 200_000}


class ServerForContract:
    too_large = 200_001
    entries = 100
    removes_after = 300

    def __init__(self, servers: Sequence[Redis], make: Callable[[], RedisEngine]) -> None:
        self._servers, self._make = servers, make
        self._engines: list[RedisEngine] = []

    async def connect(self) -> RedisEngine:
        made = self._make()
        self._engines.append(made)
        await made.open()
        return made

    async def evict(self, channel: str) -> None:
        evict(self._servers, channel)

    async def __aenter__(self) -> "ServerForContract":
        for server in self._servers:
            server.call("FLUSHALL")
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._engines:
            await each.aclose()


@pytest.fixture(scope="module")
def one_server() -> Iterator[Redis]:
    with EngineRedis(tls=certificates().server, client_ca=certificates().ca) as running:
        yield running


@pytest.fixture(scope="module")
def nodes() -> Iterator[Sequence[Redis]]:
    with redis_cluster(kind=EngineClusterNode) as running:
        yield running


class TestOneServer(EngineContract):
    @pytest_asyncio.fixture
    async def server(self, one_server: Redis) -> AsyncIterator[ServerForContract]:
        make = partial(engine, one_server, **BOUNDS)
        async with ServerForContract([one_server], make) as found:
            yield found


class TestRedisCluster(EngineContract):
    @pytest_asyncio.fixture
    async def server(self, nodes: Sequence[Redis]) -> AsyncIterator[ServerForContract]:
        async with ServerForContract(nodes, partial(cluster_engine, nodes, **BOUNDS)) as found:
            yield found
