"""The SQL in docs/sources.md: its role may read, its tables are streams."""

import re
from pathlib import Path

import pytest

from aiostream_ds.sources.postgres import Postgres
from tests.servers import Postgres as Server

from .support import QUERY, columns_of, empty_database, serving

pytestmark = pytest.mark.slow  # real servers

PAGE = Path(__file__).parents[3] / "docs" / "sources.md"


def blocks() -> list[str]:
    """The SQL of the page, for a role of another name."""
    section = PAGE.read_text("utf-8").split("\n## `postgres`\n")[1].split("\n## ")[0]
    found = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [sql.replace("reader", "documented") for sql in found]


async def test_the_documented_sql_makes_an_exact_stream(server: Server):
    role, table, changes = blocks()
    everything = "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM reader"
    async with empty_database(server, everything, table) as connection:
        await connection.execute("DROP ROLE IF EXISTS documented")
        await connection.execute(role)
        await connection.execute("INSERT INTO readings (celsius) VALUES (21.5)")
        tables = {"readings": {"table": "readings", "transaction": "xid", "filters": ["site"]}}
        async with serving(server, tables, user="documented") as grafana:
            (frame,) = await grafana.query(QUERY)
            assert columns_of(frame)["celsius"] == [21.5]
            ok, message = await grafana.health()
            assert ok and "no index" not in message
            health = await (await grafana.data_source(Postgres)).health()
            able = "readings can: history, resume after outages, event times"
            assert health.details["verboseMessage"].startswith(able)
        await connection.execute("ALTER TABLE readings DROP COLUMN xid")
        await connection.execute(changes)
        await connection.execute("INSERT INTO readings (celsius) VALUES (22.5)")
        async with serving(server, tables, user="documented") as grafana:
            (frame,) = await grafana.query(QUERY)
            assert columns_of(frame)["celsius"] == [21.5, 22.5]
            assert columns_of(frame)["cursor_1"][0] == 0 < columns_of(frame)["cursor_1"][1]
        await connection.execute("DROP OWNED BY documented; DROP ROLE documented")
