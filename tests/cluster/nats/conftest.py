"""A real NATS server for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.servers import Nats, certificates


@pytest.fixture(scope="module")
def shared() -> Iterator[Nats]:
    """With TLS, and a user who may do only what the engine needs."""
    with Nats(tls=certificates().server) as server:
        yield server


@pytest.fixture
def nats(shared: Nats) -> Nats:
    """The same server, without streams."""
    shared.delete_streams()
    return shared
