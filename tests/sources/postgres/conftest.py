"""One server for all tests of the source `postgres`."""

from collections.abc import Iterator

import pytest

from tests.servers import Postgres

from .support import running_server


@pytest.fixture(scope="package")
def server() -> Iterator[Postgres]:
    with running_server() as started:
        yield started
