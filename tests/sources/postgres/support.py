"""The server of the tests of the source `postgres`: TLS, a role that only reads, and a table."""

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import Any

import asyncpg
import pytest

from aiostream_ds.sources.postgres import Postgres
from aiostream_ds.sources.postgres.database import APPLICATION_NAME
from aiostream_ds.sources.postgres.table_reader import TableReader
from aiostream_ds.testing import Grafana, Viewer, serve_in_memory
from tests import waiting
from tests.servers import Postgres as Server
from tests.servers import certificates

QUERY = {"queryType": "rows", "table": "readings", "exact": True}
INSERT = "INSERT INTO readings (n) VALUES ($1)"

READER, READER_PASSWORD = "reader", "open sesame"

# as in docs/sources.md
GRANTS = f"""
CREATE ROLE {READER} LOGIN PASSWORD '{READER_PASSWORD}';
GRANT USAGE ON SCHEMA public TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {READER};
"""

READINGS = """
CREATE TABLE readings (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id bigint GENERATED ALWAYS AS IDENTITY,
    time timestamptz NOT NULL DEFAULT clock_timestamp(),
    site text NOT NULL DEFAULT 'paris',
    n double precision
);
CREATE INDEX ON readings (xid, id);
CREATE INDEX ON readings (time);
"""

ROW = "INSERT INTO readings (n) VALUES (1);"

TABLE = {"table": "readings", "transaction": "xid", "filters": ["site"], "poll": 0.1}
"""Settings of the table `readings`."""

DROP = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
"""


@contextmanager
def running_server(statements: str = "") -> Iterator[Server]:
    """A server with TLS, and what the statements create; by default the role of the source."""

    async def execute() -> None:
        connection = await connect(server)
        await connection.execute(statements or GRANTS)
        await connection.close()

    with Server(tls=certificates().server) as server:
        with ThreadPoolExecutor(1) as thread:  # also in a thread that runs an event loop
            thread.submit(asyncio.run, execute()).result()
        yield server


async def connect(server: Server) -> asyncpg.Connection:
    """A connection of the owner."""
    context = ssl.create_default_context(cadata=certificates().ca)
    return await asyncpg.connect(server.dsn, ssl=context)


@asynccontextmanager
async def empty_database(server: Server, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the owner, to a database that has only what the statements create."""
    connection = await connect(server)
    try:
        await connection.execute(DROP)
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        connection.terminate()


def serving(
    server: Server,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    /,
    secrets: Mapping[str, str] | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Grafana]:
    """The source with the reader's login and TLS."""
    return serve_in_memory(
        Postgres,
        settings=settings_for(server, tables, **settings),
        secrets={"password": READER_PASSWORD} if secrets is None else dict(secrets),
    )


def settings_for(
    server: Server, tables: Mapping[str, Mapping[str, Any]] | None = None, /, **settings: Any
) -> dict[str, Any]:
    return {
        "host": "localhost",
        "port": server.port,
        "user": READER,
        "tls": True,
        "caCertificate": certificates().ca,
        "tables": {"readings": TABLE} if tables is None else tables,
        **settings,
    }


def columns_of(frame: Any) -> dict[str, list[Any]]:
    return {field.name: list(field.values) for field in frame.fields}


def notices_of(frame: Any) -> list[str]:
    return [notice.text for notice in frame.meta.notices] if frame.meta else []


def path(table: str, filter: str = "") -> str:
    encoded = base64.urlsafe_b64encode(filter.encode()).decode().rstrip("=")
    return f"rows/{table}/{encoded or '-'}"


until = partial(waiting.until, seconds=15.0)


async def running(connection: asyncpg.Connection, viewer: Viewer, insert: str) -> None:
    """Insert rows of -1 until the viewer has one: the stream runs."""
    async with asyncio.timeout(15):
        while not viewer.rows:
            await connection.execute(insert)
            await asyncio.sleep(0.02)


async def begun(grafana: Grafana, *tables: str, reads: int = 1) -> None:
    """Wait until the stream of each table has read new rows: later rows are live ones.

    It counts the reads that end from now on. A table may have one stream only.
    """
    source = await grafana.data_source(Postgres)
    ended = Counter[str]()
    with ExitStack() as stack:
        for name in tables:
            stack.enter_context(_counted_reads(source._readers[name], ended))
        await until(lambda: all(ended[name] >= reads for name in tables))


@contextmanager
def _counted_reads(reader: TableReader, ended: "Counter[str]") -> Iterator[None]:
    new_rows = reader.new_rows

    async def counted(*arguments: Any) -> Any:
        found = await new_rows(*arguments)
        ended[reader.name] += 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "new_rows", counted)
        yield


async def nobody_connected(connection: asyncpg.Connection, query: str = "%") -> None:
    """Wait until the server has ended the connections of data sources whose last statement is like
    this: it learns of their end after they have."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND query LIKE $2"
    async with asyncio.timeout(15):
        while await connection.fetchval(count, APPLICATION_NAME, query):
            await asyncio.sleep(0.01)


async def next_values(viewer: Viewer, count: int, column: str = "n") -> list[Any]:
    """The next values that are not -1."""
    found: list[Any] = []
    while len(found) < count:
        value = (await viewer.next())[column]
        if value != -1:
            found.append(value)
    return found


async def exact_viewer(grafana: Grafana, table: str) -> Viewer:
    """The viewer of a table with rows: an exact channel has no columns of its own."""
    (frame,) = await grafana.query({**QUERY, "table": table})
    assert frame.rows
    return await grafana.follow(f"x/{path(table)}", frame=frame)


def statuses(viewer: Viewer) -> str:
    return b"".join(viewer.packets).decode()
