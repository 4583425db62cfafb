"""A real NATS with TLS, and a user who may only read."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.conformance.conftest import go_program, host_binary, pytest_collection_finish
from tests.servers import certificates

from .connecting import NatsToRead, Publisher, publishing

__all__ = ["go_program", "host_binary", "pytest_collection_finish"]


@pytest.fixture(scope="module")
def shared() -> Iterator[NatsToRead]:
    with NatsToRead(tls=certificates().server) as running:
        yield running


@pytest.fixture
def server(shared: NatsToRead) -> NatsToRead:
    """The same server, with an empty stream ORDERS only."""
    for name in shared.stream_names():
        shared.call(f"$JS.API.STREAM.DELETE.{name}")
    shared.make_stream()
    return shared


@pytest_asyncio.fixture
async def publisher(server: NatsToRead) -> AsyncIterator[Publisher]:
    async with publishing(server) as found:
        yield found
