"""The source `postgres` with a real server: rows, histories, filters, types and changed tables."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aiostream_ds.errors import UpstreamError
from aiostream_ds.sources.postgres import Postgres, table_reader
from aiostream_ds.testing import QueryFailed, Refused
from tests.servers import Postgres as Server

from .support import (
    INSERT,
    QUERY,
    READINGS,
    begun,
    columns_of,
    connect,
    empty_database,
    exact_viewer,
    next_values,
    notices_of,
    path,
    running,
    serving,
    statuses,
    until,
)

pytestmark = pytest.mark.slow  # real servers

PLAIN = """
CREATE TABLE plain (id bigint PRIMARY KEY, time timestamptz NOT NULL DEFAULT now(), n float8);
CREATE INDEX ON plain (time);
"""
PLAIN_TABLE = {"table": "plain", "poll": 0.1}


@pytest.fixture
def checks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream notices a changed table at its next read."""
    monkeypatch.setattr(table_reader, "CHECK_INTERVAL", 0.0)


# -- rows and histories ----------------------------------------------------------------------------


async def test_old_and_new_rows_are_in_the_panel(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.executemany(INSERT, [(float(n),) for n in range(3)])
        (frame,) = await grafana.query(QUERY)
        viewer = await grafana.follow(f"x/{path('readings')}", frame=frame)
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        await connection.execute(INSERT, 7.0)
        assert await next_values(viewer, 1) == [7]
    columns = columns_of(frame)
    assert list(columns) == ["time", "site", "n", "cursor_1", "cursor_2"]
    assert columns["n"] == [0, 1, 2] and columns["cursor_2"] == [1, 2, 3]
    assert notices_of(frame) == []


async def test_a_history_has_the_rows_of_its_range(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        insert = "INSERT INTO readings (time, n) VALUES (now() - $1 * interval '1 minute', $1)"
        await connection.executemany(insert, [(n,) for n in (50.0, 4.0, 3.0, 2.0, 1.0)])
        (frame,) = await grafana.query(QUERY)
        assert columns_of(frame)["n"] == [4, 3, 2, 1]  # five minutes
        (frame,) = await grafana.query(QUERY, max_data_points=2)
        assert columns_of(frame)["n"] == [4, 1], "thinned"


@pytest.mark.parametrize("kind", ["xid8", "bigint"])
async def test_a_row_that_commits_late_is_not_missing(server: Server, kind: str):
    default = "pg_current_xact_id()" + ("::text::bigint" if kind == "bigint" else "")
    create = READINGS.replace("xid xid8", f"xid {kind}").replace("pg_current_xact_id()", default)
    async with empty_database(server, create) as one, serving(server) as grafana:
        other = await connect(server)
        viewer = await grafana.follow(path("readings"))
        await running(one, viewer, "INSERT INTO readings (n) VALUES (-1)")
        late = one.transaction()
        await late.start()
        await one.execute(INSERT, 1.0)
        await other.execute(INSERT, 2.0)  # commits first, with the greater id
        await begun(grafana, "readings", reads=3)  # none has the second row
        assert 2.0 not in [row["n"] for row in viewer.rows]
        await late.commit()
        assert await next_values(viewer, 2) == [1, 2]
        await other.close()


async def test_rows_of_a_plain_key_are_followed_and_the_panel_has_the_limit(server: Server):
    async with (
        empty_database(server, PLAIN) as connection,
        serving(server, {"plain": PLAIN_TABLE}) as grafana,
    ):
        biggest = 2**63 - 1
        await connection.execute("INSERT INTO plain VALUES (-5, now(), 1), (2, now(), 2)")
        (frame,) = await grafana.query({**QUERY, "table": "plain"})
        assert columns_of(frame)["n"] == [1, 2]
        (notice,) = notices_of(frame)
        assert notice.startswith("rows that commit late are missing in live panels")
        viewer = await grafana.follow(path("plain"))
        await begun(grafana, "plain")
        await connection.execute(f"INSERT INTO plain VALUES ({biggest}, now(), 3)")
        assert await next_values(viewer, 1) == [3]
        assert (
            "rows that commit late are missing in live panels: set transaction"
            in (await grafana.health())[1]
        )


async def test_an_admin_can_state_that_there_is_one_writer(server: Server):
    table = PLAIN_TABLE | {"singleWriter": True}
    async with empty_database(server, PLAIN), serving(server, {"plain": table}) as grafana:
        (frame,) = await grafana.query({**QUERY, "table": "plain"})
        assert notices_of(frame) == []
        health = await (await grafana.data_source(Postgres)).health()
        able = "as long as rows are committed in the order of their key"
        assert able in health.details["verboseMessage"] and "commit late" not in health.message


async def test_a_time_and_an_integer_are_a_key(server: Server):
    create = """
    CREATE TABLE samples (time timestamptz, sensor int, n float8, PRIMARY KEY (time, sensor))
    """
    table = {"table": "samples", "key": ["time", "sensor"], "filters": ["sensor"], "poll": 0.1}
    async with (
        empty_database(server, create) as connection,
        serving(server, {"samples": table}) as grafana,
    ):
        await connection.execute("INSERT INTO samples VALUES (now(), 1, 0), (now(), 2, 0)")
        await connection.execute("INSERT INTO samples VALUES ('infinity', 3, 0)")
        (frame,) = await grafana.query({**QUERY, "table": "samples"})
        assert columns_of(frame)["sensor"] == [1, 2]
        viewer = await grafana.follow(path("samples"))
        await begun(grafana, "samples")
        await connection.execute(
            "INSERT INTO samples VALUES (now() + interval '1 microsecond', 1, 5)"
        )
        assert await next_values(viewer, 1) == [5]


FILL = """
INSERT INTO readings (time, n)
SELECT now() - $1::interval * (1 - x / 5000.0), x FROM generate_series(1, 5000) AS x
"""


async def test_rows_of_old_times_that_were_inserted_later_are_not_live_rows(
    server: Server,
):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, 1.0)
        old = "INSERT INTO readings (time, n) SELECT now() - interval '9 days', x FROM"
        await connection.execute(f"{old} generate_series(1, 50) AS x")
        (frame,) = await grafana.query(QUERY)
        assert columns_of(frame)["n"] == [1]
        assert frame.meta.custom["cursor"]["last"].endswith("-0000000000000051")


@pytest.mark.slow
async def test_a_long_range_is_thinned_also_if_rows_are_inserted_out_of_order(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, 5001.0)
        await connection.execute(FILL, timedelta(minutes=4))  # all of them are older
        (frame,) = await grafana.query(QUERY, max_data_points=500)
        assert frame.rows <= 500
        assert any(" of 5,001 rows are drawn" in text for text in notices_of(frame))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "filter"), [("timestamptz", ""), ("timestamptz", "site=paris"), ("timestamp", "")]
)
async def test_a_very_long_range_has_one_row_of_each_interval(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str, filter: str
):
    monkeypatch.setattr(table_reader, "SAMPLED_ROWS", 2_000)
    create = READINGS.replace("timestamptz", kind)
    zone = "Asia/Kolkata"
    async with (
        empty_database(server, create) as connection,
        serving(server, timeZone=zone) as grafana,
    ):
        await connection.execute(f"SET TimeZone = '{zone}'")
        await connection.execute(FILL, timedelta(days=300))
        await connection.execute("ANALYZE readings")
        end = datetime.now(UTC)
        (frame,) = await grafana.query(
            QUERY | ({"filter": filter} if filter else {}),
            start=end - timedelta(days=365),
            end=end,
            max_data_points=100,
        )
        columns = columns_of(frame)
        times = [time / 1000 for time in columns["time"]]
        assert 50 < frame.rows <= 100 and columns["n"][-1] == 5000
        assert times[0] < (end - timedelta(days=295)).timestamp()
        assert times == sorted(times)
        texts = " ".join(notices_of(frame))
        assert "rows: peaks between them are not" in texts and "Thinned by the data source" in texts
        assert frame.meta.custom["cursor"]["last"].endswith("-0000000000005000")


async def test_deleted_rows_are_reported_to_a_panel_that_was_away(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.executemany(INSERT, [(float(n),) for n in range(20)])
        first = await connection.fetchval("SELECT min(xid)::text::bigint FROM readings")
        away = f"replay/rows?path=x/{path('readings')}&after={first:016}-{{:016}}"
        answer = await grafana.resource(away.format(5))
        assert b'"truncated":false' in answer.body
        await connection.execute("DELETE FROM readings WHERE id < 10")
        answer = await grafana.resource(away.format(5))
        assert b'"truncated":true' in answer.body


async def test_an_alert_rule_gets_the_numbers_of_the_history(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(
            "INSERT INTO readings (time, n) VALUES (now() - interval '1 second', 21.5)"
        )
        (frame,) = await grafana.query(
            {"queryType": "rows", "table": "readings"}, user=None, headers={"FromAlert": "true"}
        )
        assert list(frame.fields[1].values) == [21.5]


# -- filters ---------------------------------------------------------------------------------------

SITES = """
CREATE TYPE mood AS ENUM ('fine', 'bad');
CREATE TABLE sites (
    id bigint GENERATED ALWAYS AS IDENTITY, time timestamptz DEFAULT now(),
    site text, device int, code uuid, mood mood, n float8,
    grade char(5), bits bit(3), price numeric(5, 2), day date, at timestamptz, short varchar(3)
);
INSERT INTO sites (site, device, code, mood, n, grade, bits, price, day, at, short) VALUES
    ('paris', 1, '00000000-0000-0000-0000-000000000001', 'fine', 1,
     'ab', '101', 1.5, '2026-01-02', '2026-01-02 03:04:05Z', 'abc'),
    ('a&b=c', 2, '00000000-0000-0000-0000-000000000002', 'bad', 2,
     'b', '001', 2, '2026-01-03', '2026-01-03', 'b');
"""
FILTERS = "site device code mood grade bits price day at short".split()
SITES_TABLE = {"table": "sites", "filters": FILTERS, "poll": 0.1}


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ("site=paris", [1]),
        ("site=a%26b=c", [2]),
        ("site=paris&device=1", [1]),
        ("device=1&site=a%26b=c", []),
        ("code=00000000-0000-0000-0000-000000000002", [2]),
        ("mood=bad", [2]),
        ("mood=fine&", [1]),
        ("site=", []),
        ("grade=ab", [1]),
        ("grade=a", []),
        ("bits=101", [1]),
        ("price=1.50", [1]),
        ("day=2026-01-02", [1]),
        ("at=2026-01-02T03:04:05Z", [1]),
        ("at=2026-01-02 04:04:05%2B01", [1]),
        ("short=abc", [1]),
        ("short=abcd", []),
    ],
)
async def test_a_filter_selects_rows(server: Server, filter: str, found: list[int]):
    async with (
        empty_database(server, SITES) as connection,
        serving(server, {"sites": SITES_TABLE}) as grafana,
    ):
        (frame,) = await grafana.query({**QUERY, "table": "sites", "filter": filter})
        assert frame.rows == len(found)
        if found:
            assert columns_of(frame)["n"] == found
            viewer = await grafana.follow(path("sites", filter))
            await begun(grafana, "sites")
            await connection.execute(
                "INSERT INTO sites (site, n) VALUES ('x', 9);"
                f"INSERT INTO sites ({', '.join(FILTERS)}, n)"
                f" SELECT {', '.join(FILTERS)}, n + 10 FROM sites WHERE n < 5 ORDER BY id"
            )
            assert await next_values(viewer, 1) == [found[0] + 10]


INJECTIONS = [
    "site=' OR 1=1 --",
    "site=x'; DROP TABLE sites; --",
    "site=\\'; DROP TABLE sites; --",
    "site=$1",
    "site=paris' UNION SELECT usename FROM pg_user --",
    'site"; DROP TABLE sites; --=1',
    "n=1",
    "1=1",
    "site",
    "device=1); DROP TABLE sites; --",
    "device=1 OR 1=1",
    "mood=bad'::text OR true",
    "site=a\0b",
    "site=paris&site=a",
]


@pytest.mark.parametrize("filter", INJECTIONS)
async def test_no_filter_becomes_sql(server: Server, filter: str):
    async with (
        empty_database(server, SITES) as connection,
        serving(server, {"sites": SITES_TABLE}) as grafana,
    ):
        rows = 0
        try:
            (frame,) = await grafana.query({**QUERY, "table": "sites", "filter": filter})
            rows = frame.rows
        except QueryFailed as failed:
            assert failed.status == 400, failed
        assert rows == 0
        assert await connection.fetchval("SELECT count(*) FROM sites") == 2


@pytest.mark.parametrize("table", ["other", "sites; DROP TABLE sites", "pg_user", "sites'--"])
async def test_no_name_of_a_viewer_is_a_table(server: Server, table: str):
    async with (
        empty_database(server, SITES),
        serving(server, {"sites": SITES_TABLE}) as grafana,
    ):
        with pytest.raises(QueryFailed):
            await grafana.query({**QUERY, "table": table})
        with pytest.raises((Refused, ValueError)):
            await grafana.follow(f"rows/{table}/-")


async def test_a_value_that_is_not_of_the_columns_type_is_named(server: Server):
    async with (
        empty_database(server, SITES),
        serving(server, {"sites": SITES_TABLE}) as grafana,
    ):
        with pytest.raises(QueryFailed, match="invalid input syntax for type integer: .seven"):
            await grafana.query({**QUERY, "table": "sites", "filter": "device=seven"})


async def test_names_and_values_are_suggested(server: Server):
    async with (
        empty_database(server, SITES),
        serving(server, {"sites": SITES_TABLE}) as grafana,
    ):
        answer = await grafana.resource("forms/suggest?stream=rows&field=table&typed=si")
        assert answer.body == b'["sites"]'
        values = 'values={"table":"sites"}'
        answer = await grafana.resource(
            f"forms/suggest?stream=rows&field=filter&typed=site&{values}"
        )
        assert answer.body == b'["site=a%26b=c","site=paris"]'


# -- types -----------------------------------------------------------------------------------------

TYPES = [
    ("boolean", "true", True),
    ("smallint", "7", 7),
    ("bigint", "9007199254740993", 9007199254740993),
    ("real", "1.5", 1.5),
    ("double precision", "'NaN'", math.nan),
    ("double precision", "'-Infinity'", -math.inf),
    ("numeric(10, 2)", "1.10", 1.1),
    ("numeric", "'NaN'", math.nan),
    ("numeric", "1e400", math.inf),
    ("text", "'grün'", "grün"),
    ("varchar(5)", "'a'", "a"),
    ("char(3)", "'a'", "a"),
    ("name", "'a'", "a"),
    ('"char"', "'a'", "a"),
    ("uuid", "'00000000-0000-0000-0000-000000000001'", "00000000-0000-0000-0000-000000000001"),
    ("timestamptz", "'2026-01-02 03:04:05+01'", 1767319445000),
    ("timestamptz", "'infinity'", None),
    ("timestamptz", "'0044-03-15 BC'", None),
    ("timestamp", "'2026-07-02 03:04:05'", 1782954245000),
    ("timestamp", "'-infinity'", None),
    ("date", "'2026-01-02'", 1767308400000),
    ("date", "'infinity'", None),
    ("time", "'09:30'", "09:30:00"),
    ("interval", "'1 day 1.5 seconds'", 86401.5),
    ("json", """'{"a": [1, null]}'""", {"a": [1, None]}),
    ("jsonb", "'[1, 2]'", [1, 2]),
    ("jsonb", "'7'", 7),
    ("int[]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
    ("text[]", """'{a,NULL}'""", ["a", None]),
    ("timestamptz[]", "'{infinity}'", ["infinity"]),
    ("bytea", r"'\xdeadBEEF'", "deadbeef"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("money", "12.5", "$12.50"),
    ("bit(3)", "'101'", "101"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("point", "'(1,2)'", "(1,2)"),
    ("xml", "'<a/>'", "<a/>"),
    ("tsvector", "'a b'", "'a' 'b'"),
    ("oid", "7", "7"),
    ("mood", "'bad'", "bad"),
    ("short", "'ab'", "ab"),
    ("place", "ROW(1, 'x')", {"lat": 1, "name": "x"}),
    ("text", "NULL", None),
]


def is_same(found: Any, value: Any) -> bool:
    if hasattr(found, "timestamp"):
        found = round(found.timestamp() * 1000)
    if isinstance(value, float) and not math.isfinite(value):
        return found is None or str(found) == str(value)  # JSON has no NaN
    return bool(found == value and type(found) is type(value))


async def test_a_value_of_each_type_has_its_conversion(server: Server):
    columns = ", ".join(f"v{n} {kind}" for n, (kind, _, _) in enumerate(TYPES))
    create = f"""
    CREATE TYPE mood AS ENUM ('fine', 'bad');
    CREATE DOMAIN short AS text CHECK (length(VALUE) < 5);
    CREATE TYPE place AS (lat float8, name text);
    CREATE TABLE typed (
        id int GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now(), {columns}
    )
    """
    insert = f"""
    INSERT INTO typed ({", ".join(f"v{n}" for n in range(len(TYPES)))})
    VALUES ({", ".join(sql for _, sql, _ in TYPES)})
    """
    table = {"table": "typed", "time": "at", "poll": 0.1}
    async with (
        empty_database(server, create, insert) as connection,
        serving(server, {"typed": table}, timeZone="Europe/Berlin") as grafana,
    ):
        (frame,) = await grafana.query({**QUERY, "table": "typed"})
        viewer = await grafana.follow(f"x/{path('typed')}", frame=frame)
        await begun(grafana, "typed")
        await connection.execute(insert)
        live = await viewer.next()
    old = columns_of(frame)
    wrong = [
        (kind, sql, old[f"v{n}"][0], live[f"v{n}"])
        for n, (kind, sql, value) in enumerate(TYPES)
        if not (is_same(old[f"v{n}"][0], value) and is_same(live[f"v{n}"], value))
    ]
    assert wrong == []


async def test_a_time_without_a_zone_is_a_time_of_the_setting(server: Server):
    create = """
    CREATE TABLE local (id int PRIMARY KEY, at timestamp, n float8);
    INSERT INTO local SELECT 1, now() AT TIME ZONE 'Asia/Kolkata' - interval '1 minute', 1;
    INSERT INTO local SELECT 2, now() AT TIME ZONE 'UTC' - interval '1 minute', 2;
    """
    for zone, expected in (("Asia/Kolkata", [1]), ("UTC", [2]), ("America/New_York", [])):
        async with (
            empty_database(server, create),
            serving(server, {"local": {"table": "local"}}, timeZone=zone) as grafana,
        ):
            (frame,) = await grafana.query({"queryType": "rows", "table": "local"})
            assert columns_of(frame).get("n", []) == expected


async def test_an_unknown_zone_is_named(server: Server):
    create = "CREATE TABLE local (id int PRIMARY KEY, at timestamp, n float8);"
    for zone in ("Mars/Phobos", "a'b", "\\"):
        async with (
            empty_database(server, create),
            serving(server, {"local": {"table": "local"}}, timeZone=zone) as grafana,
        ):
            ok, text = await grafana.health()
            assert not ok and f'time zone "{zone}" not recognized' in text


async def test_rows_without_a_time_are_left_out_and_counted(server: Server):
    async with empty_database(server, PLAIN.replace("NOT NULL", "")) as connection:
        await connection.execute(
            "INSERT INTO plain VALUES (1, NULL, 1), (2, 'infinity', 2), (3, now(), 3)"
        )
        async with serving(server, {"plain": PLAIN_TABLE}) as grafana:
            (frame,) = await grafana.query({**QUERY, "table": "plain"})
            assert columns_of(frame)["n"] == [3]
            answer = await grafana.resource(f"replay/rows?path=x/{path('plain')}&after=-1")
            assert b'"values":[[' in answer.body and b'"more":false' in answer.body
            assert "left out: 2 rows" in (await grafana.health())[1]
            assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="message"}'] >= 2


@pytest.mark.slow
async def test_a_long_value_is_left_out_and_counted(server: Server):
    create = PLAIN.replace("n float8", "n float8, note text, doc jsonb, raw bytea")
    async with (
        empty_database(server, create) as connection,
        serving(server, {"plain": PLAIN_TABLE}) as grafana,
    ):
        long = "repeat('x', 10000000)"
        await connection.execute(
            f"INSERT INTO plain VALUES (1, now(), 1, {long}, to_jsonb({long}), {long}::bytea),"
            " (2, now(), 2, 'short', '{}', 'a')"
        )
        (frame,) = await grafana.query({**QUERY, "table": "plain"})
        columns = columns_of(frame)
        assert columns["n"] == [1, 2] and columns["note"] == [None, "short"]
        assert columns["raw"] == [None, "61"]
        assert "3 values of more than 65,536 bytes are left out" in notices_of(frame)
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="value"}'] == 3


# -- sources of rows -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_views_partitions_and_selects_are_streams(server: Server):
    create = """
    CREATE TABLE parts (
        xid xid8 DEFAULT pg_current_xact_id(), id bigint GENERATED BY DEFAULT AS IDENTITY,
        time timestamptz DEFAULT now(), n float8
    ) PARTITION BY RANGE (n);
    CREATE TABLE low PARTITION OF parts FOR VALUES FROM (-10) TO (10);
    CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE VIEW seen AS SELECT xid, id, time, n * 2 AS n FROM parts;
    CREATE TABLE "Mixed Case" (id int PRIMARY KEY, "At" timestamptz, "N" float8);
    INSERT INTO "Mixed Case" VALUES (1, now(), 5);
    """
    common = {"transaction": "xid", "poll": 0.1}
    tables = {
        "parts": {"table": "parts", **common},
        "seen": {"table": "public.seen", **common},
        "select": {
            "select": "SELECT p.*, p.n + 1 AS more FROM parts p -- a comment\n;",
            **common,
        },
        "mixed": {"table": '"Mixed Case"', "time": "At"},
    }
    async with (
        empty_database(server, create) as connection,
        serving(server, tables) as grafana,
    ):
        viewers = {name: await grafana.follow(path(name)) for name in ("parts", "seen", "select")}
        await begun(grafana, *viewers)
        await connection.execute("INSERT INTO parts (n) VALUES (5), (15)")
        assert await next_values(viewers["parts"], 2) == [5, 15]
        assert await next_values(viewers["seen"], 2) == [10, 30]
        assert await next_values(viewers["select"], 2, "more") == [6, 16]
        (frame,) = await grafana.query({**QUERY, "table": "mixed"})
        assert columns_of(frame)["N"] == [5]
        ok, text = await grafana.health()
        assert ok, text


async def test_only_columns_that_the_role_may_read_are_read(server: Server):
    create = """
    CREATE TABLE partly (id int PRIMARY KEY, time timestamptz DEFAULT now(), n int, pin text);
    REVOKE ALL ON partly FROM reader; GRANT SELECT (id, time, n) ON partly TO reader;
    INSERT INTO partly VALUES (1, now(), 5, 'secret');
    """
    async with (
        empty_database(server, create),
        serving(server, {"partly": {"table": "partly"}}) as grafana,
    ):
        (frame,) = await grafana.query({**QUERY, "table": "partly"})
        assert list(columns_of(frame)) == ["time", "n", "cursor_1", "cursor_2"]


async def test_columns_named_as_those_of_the_source_get_another_name(server: Server):
    create = """
    CREATE TABLE named (id int PRIMARY KEY, at timestamptz, time text, time_ text, cursor_1 int);
    INSERT INTO named VALUES (1, now(), 'a', 'b', 3);
    """
    async with (
        empty_database(server, create),
        serving(server, {"named": {"table": "named", "time": "at"}}) as grafana,
    ):
        (frame,) = await grafana.query({**QUERY, "table": "named"})
        columns = columns_of(frame)
        assert (columns["time_"], columns["time__"], columns["cursor_1_"]) == (["a"], ["b"], [3])


async def test_nothing_can_be_written(server: Server):
    create = """
    CREATE FUNCTION sneaky() RETURNS int LANGUAGE sql AS 'INSERT INTO plain VALUES (9) RETURNING 1';
    """
    select = {"select": "SELECT sneaky() AS id, now() AS time"}
    async with (
        empty_database(server, PLAIN, create),
        serving(server, {"s": select}) as grafana,
    ):
        with pytest.raises(QueryFailed, match="read-only transaction"):
            await grafana.query({**QUERY, "table": "s"})


# -- a table that changes --------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_dropped_table_is_followed_again_when_it_is_back(
    server: Server, checks_always: None
):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, -1.0)
        viewer = await exact_viewer(grafana, "readings")
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        await connection.execute("DROP TABLE readings")
        await until(lambda: "has no table 'readings'" in statuses(viewer))
        with pytest.raises(QueryFailed, match="has no table 'readings'"):
            await grafana.query(QUERY)
        epoch = viewer.position.epoch if viewer.position else ""
        await connection.execute(READINGS)
        await connection.execute(INSERT, 5.0)
        await until(lambda: viewer.position is not None and viewer.position.epoch != epoch)
        live = await grafana.follow(path("readings"))
        await running(connection, live, "INSERT INTO readings (n) VALUES (6)")
        assert live.rows[0]["n"] in (5, 6)


@pytest.mark.slow
async def test_a_new_column_and_a_new_type_are_followed(server: Server, checks_always: None):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        viewer = await grafana.follow(path("readings"))
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        await connection.execute("ALTER TABLE readings ADD COLUMN extra int")
        await connection.execute("INSERT INTO readings (n, extra) VALUES (1, 7)")
        await until(lambda: viewer.rows[-1].get("extra") == 7)
        await connection.execute("ALTER TABLE readings ALTER COLUMN n TYPE text")
        await connection.execute("INSERT INTO readings (n) VALUES ('high')")
        await until(lambda: viewer.rows[-1]["n"] == "high")
        assert viewer.broken is None


async def test_an_emptied_table_whose_keys_restart_is_followed(server: Server, checks_always: None):
    create = "CREATE TABLE plain (id serial PRIMARY KEY, time timestamptz DEFAULT now(), n float8)"
    insert = "INSERT INTO plain (n) VALUES (-1)"
    async with (
        empty_database(server, create) as connection,
        serving(server, {"plain": PLAIN_TABLE}) as grafana,
    ):
        viewer = await grafana.follow(path("plain"))
        await running(connection, viewer, insert)
        for _ in range(5):
            await connection.execute(insert)
        await until(lambda: len(viewer.rows) > 5)  # its last key is not one that comes again
        await connection.execute("TRUNCATE plain RESTART IDENTITY")
        await connection.execute("INSERT INTO plain (n) VALUES (7)")
        assert await next_values(viewer, 1) == [7]


@pytest.mark.slow
async def test_a_rewritten_table_goes_on_without_a_row_twice(server: Server, checks_always: None):
    async with (
        empty_database(server, PLAIN) as connection,
        serving(server, {"plain": PLAIN_TABLE}) as grafana,
    ):
        viewer = await grafana.follow(path("plain"))
        await connection.execute("INSERT INTO plain VALUES (1, now(), -1)")
        await begun(grafana, "plain")
        await connection.execute("INSERT INTO plain VALUES (2, now(), 2)")
        assert await next_values(viewer, 1) == [2]
        await connection.execute("VACUUM FULL plain")
        await begun(grafana, "plain", reads=2)  # one may have begun before
        await connection.execute("INSERT INTO plain VALUES (3, now(), 3)")
        assert await next_values(viewer, 1) == [3]


@pytest.mark.slow
async def test_keys_that_restart_without_a_trace_are_reported(server: Server, checks_always: None):
    create = """
    CREATE TABLE base (id int, time timestamptz DEFAULT now(), n float8);
    INSERT INTO base VALUES (100, now(), 1);
    CREATE VIEW seen AS SELECT * FROM base;
    """
    async with (
        empty_database(server, create) as connection,
        serving(server, {"seen": {"table": "seen", "poll": 0.1}}) as grafana,
    ):
        viewer = await exact_viewer(grafana, "seen")
        await begun(grafana, "seen")
        await connection.execute("DELETE FROM base; INSERT INTO base VALUES (1, now(), 2)")
        await until(lambda: "is older than rows that were read before" in statuses(viewer))


# -- open transactions -----------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_transaction_that_keeps_rows_back_is_on_the_panel(
    server: Server, checks_always: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("aiostream_ds.sources.postgres.open_transactions.HELD_AFTER", 0.2)
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        idle = await connect(server)
        await connection.execute("CREATE TABLE other (n int)")
        await connection.execute(INSERT, -1.0)
        viewer = await exact_viewer(grafana, "readings")
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        await idle.execute("BEGIN; INSERT INTO other VALUES (1)")
        await connection.execute(INSERT, 5.0)
        await until(lambda: "new rows wait until an open transaction ends" in statuses(viewer))
        assert "GRANT pg_read_all_stats" in statuses(viewer)
        await connection.execute("GRANT pg_read_all_stats TO reader")
        text = f"process {idle.get_server_pid()} of grafana in postgres, idle in transaction"
        await until(lambda: text in statuses(viewer))
        (frame,) = await grafana.query(QUERY)
        assert any(text in notice for notice in notices_of(frame))
        assert text in (await grafana.health())[1]
        await idle.execute("ROLLBACK")
        await connection.execute("REVOKE pg_read_all_stats FROM reader")
        assert await next_values(viewer, 1) == [5]
        await until(lambda: '"status":null' in statuses(viewer))
        await idle.close()


@pytest.mark.slow
async def test_a_prepared_transaction_that_keeps_rows_back_is_on_the_panel(
    server: Server, checks_always: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("aiostream_ds.sources.postgres.open_transactions.HELD_AFTER", 0.2)
    async with empty_database(server) as connection:
        await connection.execute("ALTER SYSTEM SET max_prepared_transactions = 1")
    await asyncio.to_thread(server.restart)
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, -1.0)
        viewer = await exact_viewer(grafana, "readings")
        await connection.execute(
            "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'"
        )
        await connection.execute(INSERT, 5.0)
        text = "the prepared one 'forgotten' of grafana in postgres"
        await until(lambda: text in statuses(viewer))
        await connection.execute("ROLLBACK PREPARED 'forgotten'")
        await until(lambda: any(row["n"] == 5 for row in viewer.rows))


async def test_rows_of_another_server_are_reported(server: Server, checks_always: None):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute(INSERT, -1.0)
        viewer = await exact_viewer(grafana, "readings")
        await connection.execute("INSERT INTO readings (xid, n) VALUES ('4000000000', 1)")
        await until(lambda: "is not a transaction of this server" in statuses(viewer))
        assert "set their xid to 0" in (await grafana.health())[1]


async def test_a_failed_check_is_the_answer_of_all_calls_that_waited_for_it(server: Server):
    async with empty_database(server), serving(server) as grafana:
        source = await grafana.data_source(Postgres)
        reader = source._readers["readings"]
        calls = 0
        check = reader._check

        async def counted() -> Any:
            nonlocal calls
            calls += 1
            await asyncio.sleep(0.05)
            raise UpstreamError("away")

        reader._check = counted
        results = await asyncio.gather(*(reader.state() for _ in range(20)), return_exceptions=True)
        reader._check = check
    assert calls == 1 and all(isinstance(each, UpstreamError) for each in results)
