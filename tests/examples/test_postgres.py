"""The PostgreSQL example with a real server, which is killed and started again."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from aiostream_ds.testing import Viewer, serve_in_memory
from tests.servers import Postgres

from .loading import load

pytestmark = pytest.mark.slow  # real servers

postgres = load("postgres")
QUERY = {"queryType": "readings", "exact": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def serving(server: Postgres, password: str = Postgres.password):
    dsn = server.dsn.replace(f":{server.password}@", "@")
    return serve_in_memory(postgres.Readings, settings={"dsn": dsn}, secrets={"password": password})


@asynccontextmanager
async def table(server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection, with the table of the example's docstring, empty."""
    connection = await asyncpg.connect(server.dsn)
    try:
        assert postgres.__doc__ is not None
        await connection.execute("DROP TABLE IF EXISTS readings")
        for statement in re.findall(r"CREATE .*?;", postgres.__doc__, re.DOTALL):
            await connection.execute(statement)
        yield connection
    finally:
        connection.terminate()


INSERT = "INSERT INTO readings (celsius) VALUES ($1)"


async def first_row(connection: asyncpg.Connection, viewer: Viewer) -> None:
    """Insert rows of -1 until the stream runs and the viewer gets one."""
    while not viewer.rows:
        await connection.execute(INSERT, -1.0)
        await connection.execute("NOTIFY readings")
        await asyncio.sleep(0.02)


async def test_old_and_new_rows_are_in_the_panel(server: Postgres):
    async with table(server) as connection, serving(server) as grafana:
        await connection.executemany(INSERT, [(float(n),) for n in range(3)])
        (frame,) = await grafana.query(QUERY)
        viewer = await grafana.follow("x/readings", frame=frame)
        await first_row(connection, viewer)
    columns = {field.name: list(field.values) for field in frame.fields}
    assert columns["celsius"] == [0, 1, 2] and viewer.rows[0]["celsius"] == -1


async def test_a_row_that_commits_late_is_not_missing(server: Postgres):
    async with table(server) as one, serving(server) as grafana:
        other = await asyncpg.connect(server.dsn)
        viewer = await grafana.follow("readings")
        await first_row(one, viewer)
        late = one.transaction()
        await late.start()
        await one.execute(INSERT, 1.0)
        await other.execute(INSERT, 2.0)  # commits first, with the greater id
        await other.execute("NOTIFY readings")
        await late.commit()
        await other.execute("NOTIFY readings")
        while (row := await viewer.next())["celsius"] < 0:
            pass
        rows = [row, await viewer.next()]
        await other.close()
    assert [row["celsius"] for row in rows] == [1, 2]


@pytest.mark.slow
@pytest.mark.timeout(90)
async def test_no_row_is_lost_or_doubled_by_concurrent_writers_and_kills(server: Postgres):
    writers, count = 4, 250

    async def write(offset: int) -> None:
        connection = None
        for number in range(offset, offset + count):
            while True:
                try:
                    connection = connection or await asyncpg.connect(server.dsn)
                    found = "SELECT 1 FROM readings WHERE celsius = $1"  # a lost answer
                    if not await connection.fetchval(found, float(number)):
                        await connection.execute(INSERT, float(number))
                        await connection.execute("NOTIFY readings")
                    break
                except postgres.AWAY:
                    if connection is not None:
                        connection.terminate()
                    connection = None
                    await asyncio.sleep(0.05)
        assert connection is not None
        await connection.close()

    async with table(server) as connection, serving(server) as grafana:
        viewer = await grafana.follow("readings")
        await first_row(connection, viewer)
        tasks = [asyncio.create_task(write(number * count)) for number in range(writers)]
        while (row := await viewer.next())["celsius"] < 0:
            pass
        rows = [row, *await viewer.take(199, timeout=60)]
        for _ in range(2):
            await asyncio.to_thread(server.restart)
            rows += await viewer.take(200, timeout=60)
        rows += await viewer.take(writers * count - len(rows), timeout=60)
        await asyncio.gather(*tasks)
    assert sorted(row["celsius"] for row in rows) == list(range(writers * count))
    ids = [(row["xid"], row["id"]) for row in rows]
    assert ids == sorted(ids)


async def test_save_and_test_dials(server: Postgres):
    async with serving(server) as grafana:
        is_healthy, text = await grafana.health()
        assert is_healthy and text.startswith("connected to PostgreSQL ")
    async with serving(server, "wrong") as grafana:
        is_healthy, text = await grafana.health()
        expected = f'Readings: password authentication failed for user "{server.login}"'
        assert (is_healthy, text) == (False, expected)
