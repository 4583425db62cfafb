"""PostgreSQL: the rows of a table, exactly once, also of concurrent writers. Needs asyncpg.

    CREATE TABLE readings (
        xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
        id bigint GENERATED ALWAYS AS IDENTITY,
        time timestamptz NOT NULL DEFAULT now(),
        celsius double precision
    );
    CREATE INDEX ON readings (xid, id);
    CREATE INDEX ON readings (time);

Writers also NOTIFY readings. Try it:

    aiostream-ds dev examples/postgres.py --set dsn=postgresql://user@localhost/house
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import asyncpg

from aiostream_ds import (
    ConfigError,
    Cursor,
    DataSource,
    Health,
    HistoryRange,
    Rows,
    Secret,
    Settings,
    UpstreamError,
    secret,
    serve,
    stream,
)

Id = tuple[int, int]  # of the transaction, and of the row

# rows of transactions that may still be open come later: else one that commits late is missed
COMMITTED = "xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
ROWS = f"SELECT xid, id, time, celsius FROM readings WHERE {COMMITTED}"
NEXT = f"{ROWS} AND (xid, id) > ($1, $2) AND (xid, id) <= ($3, $4) ORDER BY xid, id LIMIT $5"
LAST = f"{ROWS} ORDER BY xid DESC, id DESC LIMIT 1"
RANGE = f"{ROWS} AND time BETWEEN $1 AND $2 ORDER BY xid DESC, id DESC LIMIT $3"


END: Id = (2**63 - 1, 2**63 - 1)

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class Database(Settings):
    dsn: str
    password: Secret = secret()


@contextmanager
def declared_errors() -> Iterator[None]:
    try:
        yield
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise ConfigError(f"PostgreSQL refuses the login: {error}") from error
    except AWAY as error:
        raise UpstreamError(f"PostgreSQL: {error}") from error


class Readings(DataSource[Database]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.login = {"dsn": self.settings.dsn, "password": self.settings.password.reveal() or None}
        async with asyncpg.create_pool(**self.login, min_size=0) as self.pool:
            yield

    async def fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        with declared_errors():
            found: list[asyncpg.Record] = await self.pool.fetch(sql, *arguments)
        return found

    async def health(self) -> Health:
        ((version,),) = await self.fetch("SHOW server_version")
        return Health(True, f"connected to PostgreSQL {version}")

    @stream(cursor=("xid", "id"))
    async def readings(self, after: Cursor[Id]) -> Rows:
        last = after.value
        with declared_errors():
            connection = await asyncpg.connect(**self.login)  # listens: not one of the pool
            news = asyncio.Event()
            await connection.add_listener("readings", lambda *_: news.set())
            try:
                while True:
                    news.clear()
                    while rows := await connection.fetch(NEXT, *last, *END, 1_000):
                        yield rows
                        last = rows[-1]["xid"], rows[-1]["id"]
                    with anyio.move_on_after(1):  # a row may become visible without news
                        await news.wait()
            finally:
                connection.terminate()

    @readings.last
    async def newest(self) -> Id | None:
        found = await self.fetch(LAST)
        return (found[0]["xid"], found[0]["id"]) if found else None

    @readings.history
    async def read(self, history_range: HistoryRange[Id]) -> list[asyncpg.Record]:
        limit = history_range.limit
        if history_range.after is None:
            found = await self.fetch(RANGE, history_range.start, history_range.end, limit)
            return found[::-1]
        return await self.fetch(NEXT, *history_range.after, *(history_range.upto or END), limit)


if __name__ == "__main__":
    serve(Readings)
