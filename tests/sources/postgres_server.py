"""The server of the tests of the source `postgres`: TLS, a role that only reads, and a table."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg

from aiostream_ds.sources.postgres import Postgres
from aiostream_ds.testing import Grafana, serve_in_memory
from tests.servers import Postgres as Server
from tests.servers import certificates

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

TABLE = {"table": "readings", "transaction": "xid", "filters": ["site"], "poll": 0.1}
"""Settings of the table `readings`."""

DROP = """
DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
"""


def make_server() -> Server:
    return Server(tls=certificates().server)


async def connect(server: Server) -> asyncpg.Connection:
    """A connection of the owner."""
    import ssl

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
    own = {
        "host": "localhost",
        "port": server.port,
        "username": READER,
        "caCertificate": certificates().ca,
        "tables": {"readings": TABLE} if tables is None else tables,
    }
    return serve_in_memory(
        Postgres,
        settings={**own, **settings},
        secrets={"password": READER_PASSWORD} if secrets is None else dict(secrets),
    )
