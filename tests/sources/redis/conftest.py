"""A real Redis with TLS, and a user who may only read."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis as Client

from tests.conformance.conftest import go_program, host_binary, pytest_collection_finish
from tests.servers import Redis, certificates

from .connecting import admin

__all__ = ["go_program", "host_binary", "pytest_collection_finish"]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis(tls=certificates().server) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: Redis) -> AsyncIterator[Client]:
    """A client of the admin, with an empty database."""
    async with admin(server) as found:
        await found.flushall()
        await found.config_set("notify-keyspace-events", "")
        yield found
