"""The source `postgres` when the server, the login or the settings are wrong: a clear state on the
panel and in "Save & test", and other channels go on."""

import asyncio
import random
from contextlib import ExitStack
from typing import Any

import pytest
from grpclib import GRPCError

from aiostream_ds.sources.postgres import Postgres, database, postgres_source
from aiostream_ds.testing import QueryFailed
from tests.servers import Postgres as Server
from tests.servers import Proxy, certificates

from .support import (
    INSERT,
    QUERY,
    READINGS,
    TABLE,
    columns_of,
    empty_database,
    exact_viewer,
    next_values,
    nobody_connected,
    path,
    running,
    running_server,
    serving,
    statuses,
    until,
)

pytestmark = pytest.mark.slow  # real servers

WRONG_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"host": "nowhere.invalid"}, "PostgreSQL nowhere.invalid:.*is not found by DNS"),
    ({"port": 1}, "PostgreSQL localhost:1 refuses the connection; is it running"),
    ({"caCertificate": certificates().other_ca}, "signed by an unknown authority"),
    ({"caCertificate": "nonsense"}, "caCertificate must have a block"),
    ({"serverName": "elsewhere.test"}, "Hostname mismatch.*serverName"),
    ({"tls": False}, "refuses the connection: no pg_hba.conf entry.*no encryption"),
    ({"user": "nobody"}, "refuses the login: password authentication failed"),
    ({"database": "nothing"}, 'database "nothing" does not exist; set database'),
    ({"tables": {"a/b": TABLE}}, "a name must have letters, digits and _ - = . only, got 'a/b'"),
    ({"tables": {"a": {}}}, "tables.a: expected either table or select, got both or none"),
    ({"tables": {"a": {"table": "readings", "key": []}}}, "key"),
    ({"host": "a..b"}, "host must be a host name or an address, got 'a..b'"),
    ({"channels": [""]}, "channels: a channel must have 1 to 63 bytes, got ''"),
    ({"tables": {"a": {**TABLE, "notify": "x" * 64}}}, r"tables.a.notify: .* 1 to 63 bytes"),
    ({"user": "a\0b"}, "invalid startup packet"),
]


@pytest.mark.parametrize(("wrong", "text"), WRONG_SETTINGS)
async def test_save_and_test_names_what_is_wrong(server: Server, wrong: dict[str, Any], text: str):
    async with empty_database(server, READINGS), serving(server, **wrong) as grafana:
        ok, message = await grafana.health()
        assert not ok
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(message)
        with pytest.raises(QueryFailed) as failed:
            await grafana.query(QUERY)
        assert failed.value.source == "downstream"


@pytest.mark.slow
async def test_a_wrong_password_is_named_and_not_tried_again(
    server: Server, caplog: pytest.LogCaptureFixture
):
    secrets = {"password": "wrong secret"}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, secrets=secrets) as grafana,
    ):
        ok, message = await grafana.health()
        assert not ok and 'refuses the login: password authentication failed for user "reader"' in (
            message
        )
        assert "wrong secret" not in message
        with pytest.raises(GRPCError, match="refuses the login"):
            await grafana.follow(f"x/{path('readings')}")
        await grafana.follow(path("readings"))
        await until(lambda: "stream refused" in caplog.text)
        tried = server.log.count("password authentication failed")
        await connection.execute(INSERT, 1.0)
        await asyncio.sleep(1.0)
        assert server.log.count("password authentication failed") == tried


@pytest.mark.slow
@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (certificates().expired, "its certificate has expired; the server needs a new one"),
        (certificates().other_name, "Hostname mismatch"),
    ],
)
async def test_a_bad_certificate_is_named(certificate: Any, text: str):
    with Server(tls=certificate) as other:
        async with serving(other) as grafana:
            ok, message = await grafana.health()
            assert not ok and text in message
            with pytest.raises(QueryFailed, match=text):
                await grafana.query(QUERY)


@pytest.mark.slow
async def test_a_client_certificate_is_presented():
    pair = certificates().client
    with ExitStack() as stack:
        other = await asyncio.to_thread(stack.enter_context, running_server())
        other.client_ca = certificates().ca
        await asyncio.to_thread(other.restart)
        async with serving(other) as grafana:
            ok, message = await grafana.health()
            assert not ok and "connection requires a valid client certificate" in message
        secrets = {"password": "open sesame", "clientKey": pair.key}
        async with serving(
            other, {}, secrets=secrets, clientCertificate=pair.certificate
        ) as grafana:
            ok, message = await grafana.health()
            assert ok, message


WRONG_TABLES: list[tuple[dict[str, Any], str]] = [
    ({"table": "nothing"}, "the database 'postgres' has no table 'nothing'"),
    ({"table": "READINGS; DROP TABLE readings"}, "invalid name syntax|has no table"),
    ({"table": "mixed"}, 'has no table .mixed.; there is public."Mixed"'),
    ({"table": "locked"}, 'GRANT SELECT ON "public"."locked" TO "reader"'),
    ({"table": "hidden.t"}, "permission denied for schema hidden; GRANT it to 'reader'"),
    ({"table": "readings", "key": ["nr"]}, r"key: expected a column \(xid, id.*got 'nr'"),
    ({"table": "readings", "key": ["site"]}, "key: expected a column of type .*'site' is text"),
    ({"table": "readings", "transaction": "n"}, "transaction: .*int8 or xid8; 'n' is float8"),
    ({"table": "readings", "transaction": "xid", "key": ["id", "time"]}, "expected one column"),
    ({"table": "readings", "transaction": "xid", "key": ["xid"]}, "another column than trans"),
    ({"table": "readings", "key": ["id", "id"]}, "key: expected two different columns, got id, id"),
    ({"table": "readings", "time": "site"}, "time: expected a column of type .*'site' is text"),
    ({"table": "timeless"}, "time: expected the name of a column of type date.*; got none"),
    ({"table": "readings", "columns": ["x"]}, "columns: expected a column .*got 'x'"),
    ({"table": "readings", "filters": ["x"]}, "filters: expected a column .*got 'x'"),
    ({"select": "SELECT nonsense"}, 'column "nonsense" does not exist'),
    ({"select": "SELECT 1 AS id, 2 AS id, now() AS time"}, 'column reference "id" is ambiguous'),
    ({"select": "DELETE FROM readings"}, "syntax error"),
    (
        {"select": "WITH x AS (DELETE FROM readings RETURNING *) TABLE x"},
        "must be at the top level",
    ),
    ({"select": "SELECT 1) AS q; DROP TABLE readings; --"}, "syntax error"),
    ({"select": "SELECT $1::int AS id, now() AS time"}, "expects 1 argument"),
    ({"select": "SELECT 1 AS id, now() AS time, 1/0 AS n"}, "division by zero"),
]

OTHER_TABLES = """
CREATE TABLE "Mixed" (id int, time timestamptz);
CREATE TABLE timeless (id int PRIMARY KEY, n int);
CREATE TABLE locked (id int, time timestamptz); REVOKE ALL ON locked FROM reader;
DROP SCHEMA IF EXISTS hidden CASCADE;
CREATE SCHEMA hidden; CREATE TABLE hidden.t (id int, time timestamptz);
"""


@pytest.mark.slow
async def test_a_wrong_table_is_named_and_the_others_go_on(server: Server):
    tables = {f"wrong{n}": {"poll": 0.1, **table} for n, (table, _) in enumerate(WRONG_TABLES)}
    async with (
        empty_database(server, READINGS, OTHER_TABLES) as connection,
        serving(server, {**tables, "readings": TABLE}) as grafana,
    ):
        ok, message = await grafana.health()
        health = await (await grafana.data_source(Postgres)).health()
        assert not ok and health.details["verboseMessage"].startswith("readings can: history")
        assert "readings" not in message
        for name, (_, text) in zip(tables, WRONG_TABLES, strict=True):
            with pytest.raises(QueryFailed, match=text) as failed:
                await grafana.query({**QUERY, "table": name})
            assert failed.value.source == "downstream"
        for name in tables:
            await grafana.follow(path(name))
        good = await grafana.follow(path("readings"))
        await running(connection, good, "INSERT INTO readings (n) VALUES (-1)")
        degraded = 'aiostream_ds_streams_degraded{status="reconnecting"}'
        async with asyncio.timeout(15):
            while (await grafana.metrics()).get(degraded) != len(tables):
                await asyncio.sleep(0.05)
        await connection.execute(INSERT, 5.0)
        assert await next_values(good, 1) == [5]


@pytest.mark.slow
async def test_a_silent_server_is_on_the_panel(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres_source, "SLOW", 0.2)
    with Proxy(server.port) as proxy:
        limits = {"connectTimeout": 1.5, "statementTimeout": 1.5}
        async with (
            empty_database(server, READINGS) as connection,
            serving(server, port=proxy.port, **limits) as grafana,
        ):
            await connection.execute(INSERT, -1.0)
            viewer = await exact_viewer(grafana, "readings")
            await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
            proxy.hold()
            await until(lambda: "PostgreSQL has not answered for 0.2 s" in statuses(viewer))
            monkeypatch.setattr(postgres_source, "HEALTH_TIMEOUT", 0.1)
            ok, message = await grafana.health()
            assert not ok and "has not answered all questions within 0.1 s" in message
            monkeypatch.undo()
            async with serving(server, port=proxy.port, **limits) as other:
                ok, message = await other.health()
                assert not ok and "does not answer in time" in message
            await connection.execute(INSERT, 7.0)
            proxy.restore()
            assert await next_values(viewer, 1) == [7]
            await until(lambda: '"status":null' in statuses(viewer))


@pytest.mark.slow
async def test_a_slow_statement_is_cancelled_and_the_others_go_on(server: Server):
    slow = {"select": "SELECT r.*, pg_sleep(5) FROM readings AS r", "poll": 0.1}
    tables = {"readings": TABLE, "slow": {**slow, "transaction": "xid", "filters": ["site"]}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables, statementTimeout=0.5, connections=2) as grafana,
    ):
        await connection.executemany(INSERT, [(-1.0,)] * 5)
        good = await grafana.follow(path("readings"))
        slow_viewers = [
            await grafana.follow(f"x/{path('slow', filter)}") for filter in ("", "site=a", "site=b")
        ]
        query = asyncio.create_task(grafana.query({**QUERY, "table": "slow"}))
        await running(connection, good, "INSERT INTO readings (n) VALUES (-1)")
        await connection.execute(INSERT, 5.0)
        assert await next_values(good, 1) == [5]
        with pytest.raises(QueryFailed, match=r"cancelled a statement after 0\.5 s"):
            await query
        await until(lambda: "cancelled a statement after 0.5 s" in statuses(slow_viewers[0]))


async def test_a_cancelled_query_frees_its_connection(server: Server):
    select = {"select": "SELECT r.*, pg_sleep(60) FROM readings AS r", "transaction": "xid"}
    tables = {"readings": TABLE, "slow": select}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables, connections=2) as grafana,
    ):
        await connection.execute(INSERT, -1.0)
        query = asyncio.create_task(grafana.query({**QUERY, "table": "slow"}))
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
        sleeping += " AND pid <> pg_backend_pid() AND state = 'active'"
        while not await connection.fetchval(sleeping):
            await asyncio.sleep(0.01)
        query.cancel()
        while await connection.fetchval(sleeping):
            await asyncio.sleep(0.01)
        (frame,) = await grafana.query(QUERY)
        assert frame.rows == 1


@pytest.mark.slow
async def test_random_cancellations_leave_a_pool_that_works(server: Server):
    chance = random.Random(7)
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.executemany(INSERT, [(float(n),) for n in range(100)])
        reader = (await grafana.data_source(postgres_source.Postgres))._readers["readings"]
        for _ in range(100):
            task = asyncio.create_task(reader.newest())
            await asyncio.sleep(chance.random() * 0.004)
            task.cancel()
            await asyncio.wait({task})
        _, newest = await reader.newest()
        assert newest[1] == 100
        connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
        assert await connection.fetchval(connections, "aiostream-ds") <= 10


@pytest.mark.slow
async def test_a_restarted_server_does_not_fail_the_next_query(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, 1.0)
        await grafana.query(QUERY)
        await asyncio.to_thread(server.restart)
        (frame,) = await grafana.query(QUERY)
        assert columns_of(frame)["n"] == [1]


@pytest.mark.slow
async def test_a_pooler_gets_no_unknown_parameters_and_no_listen(server: Server):
    tables = {"readings": {**TABLE, "notify": "readings"}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables, pooler=True, statementTimeout=0.5, channels=["news"]) as grafana,
    ):
        viewer = await grafana.follow(path("readings"))
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        ok, message = await grafana.health()
        assert not ok and "LISTEN does not work through a pooler" in message
        seen = await connection.fetch(
            "SELECT query FROM pg_stat_activity WHERE application_name = 'aiostream-ds'"
        )
        assert seen
    select = {"select": "SELECT pg_sleep(5)::text AS a, 1 AS id, now() AS time"}
    async with serving(server, {"slow": select}, pooler=True, statementTimeout=0.3) as grafana:
        with pytest.raises(QueryFailed, match="cancelled a statement"):
            await grafana.query({**QUERY, "table": "slow"})


async def test_the_role_and_the_limits_are_on_the_server(server: Server):
    select = {
        "select": "SELECT 1 AS id, now() AS time, current_setting('transaction_read_only') AS a,"
        " current_setting('statement_timeout') AS b, current_setting('application_name') AS c,"
        " current_user::text AS d"
    }
    async with empty_database(server), serving(server, {"s": select}) as grafana:
        (frame,) = await grafana.query({**QUERY, "table": "s"})
        columns = columns_of(frame)
        assert [columns[name] for name in "abcd"] == [["on"], ["30s"], ["aiostream-ds"], ["reader"]]


@pytest.mark.slow
async def test_the_pool_is_bounded(server: Server):
    select = {"select": "SELECT 1 AS id, now() AS time, pg_sleep(0.2)::text AS a"}
    tables = {f"s{n}": select for n in range(10)}
    async with (
        empty_database(server) as connection,
        serving(server, tables, connections=3) as grafana,
    ):
        await nobody_connected(connection)  # of the test before
        queries = [asyncio.create_task(grafana.query({**QUERY, "table": name})) for name in tables]
        most = 0
        while not all(query.done() for query in queries):
            seen = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aiostream-ds'"
            )
            most = max(most, seen)
            await asyncio.sleep(0.01)
        assert 2 <= most <= 3
        assert all(query.result()[0].rows == 1 for query in queries)


async def test_the_password_is_in_no_log_or_message(
    server: Server, caplog: pytest.LogCaptureFixture
):
    secrets = {"password": "correct horse battery"}
    async with empty_database(server), serving(server, secrets=secrets) as grafana:
        _, message = await grafana.health()
        with pytest.raises(QueryFailed) as failed:
            await grafana.query(QUERY)
    assert "correct horse" not in f"{message}{failed.value}{caplog.text}"


async def test_tables_that_can_be_streams_are_listed(server: Server):
    more = """
    CREATE TABLE samples (time timestamptz, sensor int, n float8, PRIMARY KEY (time, sensor));
    CREATE VIEW seen AS SELECT * FROM samples;
    CREATE TABLE named (name text PRIMARY KEY, time timestamptz);
    CREATE TABLE locked (id int PRIMARY KEY, time timestamptz); REVOKE ALL ON locked FROM reader;
    """
    create = READINGS.replace("AS IDENTITY", "AS IDENTITY PRIMARY KEY")
    async with empty_database(server, create, more), serving(server, {}) as grafana:
        ok, message = await grafana.health()
        assert ok and "it can read public.named, public.readings, public.samples" in message
        source = await grafana.data_source(postgres_source.Postgres)
        details = (await source.health()).details
        assert details is not None
        assert details["tables"] == {
            "public.named": {},
            "public.readings": {"table": "public.readings", "key": ["id"], "transaction": "xid"},
            "public.samples": {"table": "public.samples", "key": ["time", "sensor"]},
            "public.seen": {},
        }
    async with serving(server, {"found": details["tables"]["public.samples"]}) as grafana:
        ok, message = await grafana.health()
        assert ok, message


async def test_missing_indexes_are_reported(server: Server):
    create = READINGS.replace("CREATE INDEX ON readings (time);", "")
    async with empty_database(server, create), serving(server) as grafana:
        _, message = await grafana.health()
        assert "no index begins with time: reads may be slow" in message


async def test_connections_that_are_not_needed_are_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(database, "IDLE", 0.0)
    open_connections = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aiostream-ds'"
    )
    async with empty_database(server, READINGS) as connection:
        await nobody_connected(connection)
        log_before = len(server.log)
        async with serving(server) as grafana:
            await asyncio.gather(*(grafana.query(QUERY) for _ in range(10)))
            assert await connection.fetchval(open_connections) >= 1
            for _ in range(5):
                await grafana.query(QUERY)
            async with asyncio.timeout(15):
                while await connection.fetchval(open_connections) > 1:
                    await asyncio.sleep(0.01)
        await nobody_connected(connection)
    assert "reset by peer" not in server.log[log_before:]
