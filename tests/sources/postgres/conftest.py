"""One server for all tests of the source `postgres`."""

from collections.abc import Iterator

import pytest

from tests.conformance.conftest import go_program, host_binary, pytest_collection_finish
from tests.servers import Postgres

from .support import running_server

__all__ = ["go_program", "host_binary", "pytest_collection_finish"]


@pytest.fixture(scope="package")
def server() -> Iterator[Postgres]:
    with running_server() as started:
        yield started
