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

import anyio
import asyncpg

import aiostream_ds as ds

Id = tuple[int, int]  # of the transaction, and of the row
END: Id = (2**63 - 1, 2**63 - 1)

# rows of transactions that may still be open come later: else one that commits late is missed
COMMITTED = "xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
ROWS = f"SELECT xid, id, time, celsius FROM readings WHERE {COMMITTED}"
NEXT = f"{ROWS} AND (xid, id) > ($1, $2) AND (xid, id) <= ($3, $4) ORDER BY xid, id LIMIT $5"
LAST = f"{ROWS} ORDER BY xid DESC, id DESC LIMIT 1"
RANGE = f"{ROWS} AND time BETWEEN $1 AND $2 ORDER BY xid DESC, id DESC LIMIT $3"

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class Database(ds.Settings):
    dsn: str
    password: ds.Secret = ds.secret()


class Readings(ds.DataSource[Database]):
    declared_errors = {
        AWAY: ds.UpstreamError,
        asyncpg.InvalidAuthorizationSpecificationError: ds.ConfigError,
    }

    def lifespan(self) -> asyncpg.Pool:
        password = self.settings.password.reveal() or None
        self.pool = asyncpg.create_pool(self.settings.dsn, password=password, min_size=0)
        return self.pool

    async def health(self) -> ds.Health:
        version = await self.pool.fetchval("SHOW server_version")
        return ds.Health(message=f"connected to PostgreSQL {version}")

    @ds.stream(cursor=("xid", "id"))
    async def readings(self, after: ds.Cursor[Id]) -> ds.Rows:
        last, news = after.value, asyncio.Event()
        async with self.pool.acquire() as connection:
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
                connection.terminate()  # it listens: not for other uses

    @readings.last
    async def newest(self) -> Id | None:
        row = await self.pool.fetchrow(LAST)
        return (row["xid"], row["id"]) if row else None

    @readings.history
    async def read(self, wanted: ds.HistoryRange[Id]) -> list[asyncpg.Record]:
        if wanted.after is None:
            newest = await self.pool.fetch(RANGE, wanted.start, wanted.end, wanted.limit)
            return list(reversed(newest))
        upto = wanted.upto or END
        return list(await self.pool.fetch(NEXT, *wanted.after, *upto, wanted.limit))


if __name__ == "__main__":
    ds.serve(Readings)
