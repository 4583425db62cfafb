"""The source `postgres`: NOTIFY as a wake-up for a table, and its payloads as a stream."""

import asyncio
import base64

import pytest

from aiostream_ds.sources.postgres import Postgres, listener, postgres_source
from aiostream_ds.testing import Refused, Viewer
from tests.servers import Postgres as Server
from tests.servers import Proxy

from .support import (
    INSERT,
    READINGS,
    TABLE,
    empty_database,
    next_values,
    nobody_connected,
    path,
    running,
    serving,
    statuses,
    until,
)

pytestmark = pytest.mark.slow  # real servers


def channel(name: str) -> str:
    return f"notifications/{base64.urlsafe_b64encode(name.encode()).decode().rstrip('=')}"


async def listening(connection, viewer: Viewer, name: str) -> None:
    """Notify until the viewer has a row: the channel is listened to."""
    async with asyncio.timeout(15):
        while not viewer.rows:
            await connection.execute("SELECT pg_notify($1, '{\"n\": -1}')", name)
            await asyncio.sleep(0.02)


async def test_a_notification_reads_new_rows_at_once(server: Server):
    tables = {"readings": {**TABLE, "notify": "Readings!", "poll": 600}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables) as grafana,
    ):
        await nobody_connected(connection)  # of the test before
        viewer = await grafana.follow(path("readings"))
        other = await grafana.follow(path("readings", "site=paris"))
        insert = 'INSERT INTO readings (n) VALUES (-1); NOTIFY "Readings!"'
        await running(connection, viewer, insert)
        await running(connection, other, insert)
        await connection.execute('INSERT INTO readings (n) VALUES (5); NOTIFY "Readings!"')
        assert await next_values(viewer, 1) == [5]
        assert await next_values(other, 1) == [5]
        listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert await connection.fetchval(listeners) == 1


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_the_first_stream_that_listens_may_end_before_the_others(server: Server):
    tables = {"readings": {**TABLE, "notify": "readings", "poll": 600}}
    insert = "INSERT INTO readings (n) VALUES (-1); NOTIFY readings"
    async with empty_database(server, READINGS) as connection, serving(server, tables) as grafana:
        first = await grafana.follow(path("readings"))
        await running(connection, first, insert)
        second = await grafana.follow(path("readings", "site=paris"))
        await running(connection, second, insert)
        first.leave()
        streams = "aiostream_ds_streams_running"
        async with asyncio.timeout(40):
            while (await grafana.metrics())[streams] != 1:
                await asyncio.sleep(0.1)
        await connection.execute("INSERT INTO readings (n) VALUES (5); NOTIFY readings")
        assert await next_values(second, 1) == [5]


async def test_rows_come_by_polling_while_nothing_can_listen(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(*_: object) -> None:
        raise RuntimeError("no LISTEN here")

    monkeypatch.setattr(listener.NotificationListener, "subscribe", refuse)
    tables = {"readings": {**TABLE, "notify": "readings"}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables) as grafana,
    ):
        viewer = await grafana.follow(path("readings"))
        await running(connection, viewer, "INSERT INTO readings (n) VALUES (-1)")
        source = await grafana.data_source(Postgres)
        await until(lambda: "no LISTEN here" in source._wakeups.errors.get("readings", ""))


async def test_payloads_are_rows(server: Server):
    async with (
        empty_database(server) as connection,
        serving(server, {}, channels=["news", "Ä!"]) as grafana,
    ):
        viewer = await grafana.follow(channel("news"))
        accented = await grafana.follow(channel("Ä!"))
        await listening(connection, viewer, "news")
        await listening(connection, accented, "Ä!")
        await connection.execute("SELECT pg_notify('news', $1)", '{"n": 1, "at": {"x": 2}}')
        await connection.execute("SELECT pg_notify('news', $1)", '[{"n": 2}, {"n": 3}]')
        await connection.execute("SELECT pg_notify('Ä!', '{\"n\": 4}')")
        assert await next_values(viewer, 3) == [1, 2, 3]
        assert await next_values(accented, 1) == [4]


async def test_a_bad_payload_is_counted_and_the_stream_goes_on(server: Server):
    async with (
        empty_database(server) as connection,
        serving(server, {}, channels=["news"], format="json") as grafana,
    ):
        viewer = await grafana.follow(channel("news"))
        await listening(connection, viewer, "news")
        for payload in ("{", "\\x00", "", "x" * 7999, '{"n": 5}'):
            await connection.execute("SELECT pg_notify('news', $1)", payload)
        assert await next_values(viewer, 1) == [5]
        assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="message"}'] == 3
        _, message = await grafana.health()
        assert "3 messages and rows were left out; the first of news: invalid JSON" in message


async def test_labels_of_payloads_make_series(server: Server):
    async with (
        empty_database(server) as connection,
        serving(server, {}, channels=["news"], labels=["site"]) as grafana,
    ):
        viewer = await grafana.follow(channel("news"))
        await listening(connection, viewer, "news")
        for site in ("paris", "rome"):
            await connection.execute(
                "SELECT pg_notify('news', $1)", f'{{"n": 1, "site": "{site}"}}'
            )
        await until(
            lambda: (
                {"paris", "rome"}
                <= {field.labels.get("site") for field in viewer.fields if field.labels}
            )
        )


@pytest.mark.slow
async def test_notifications_of_an_outage_are_reported_as_missing(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(postgres_source, "SHOWN", 0.5)
    with Proxy(server.port) as proxy:
        async with (
            empty_database(server) as connection,
            serving(server, {}, channels=["news"], port=proxy.port) as grafana,
        ):
            (frame,) = await grafana.query(
                {"queryType": "notifications", "channel": "news", "exact": True}
            )
            viewer = await grafana.follow(f"x/{channel('news')}", frame=frame)
            plain = await grafana.follow(channel("news"))
            await listening(connection, plain, "news")
            proxy.refuse()
            await until(lambda: "reconnecting" in statuses(viewer))
            await connection.execute("NOTIFY news, '{\"n\": 1}'")
            proxy.restore()
            await until(lambda: "UTC may be missing" in statuses(viewer))
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
            await until(lambda: '"status":null' in statuses(viewer).rpartition("may be missing")[2])
            await connection.execute("NOTIFY news, '{\"n\": 2}'")
            assert await next_values(plain, 1) == [2]


@pytest.mark.slow
async def test_a_lost_network_is_noticed_by_the_connection_that_listens(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener, "PING", 0.2)
    with Proxy(server.port) as proxy:
        async with (
            empty_database(server) as connection,
            serving(server, {}, channels=["news"], port=proxy.port) as grafana,
        ):
            viewer = await grafana.follow(channel("news"))
            await listening(connection, viewer, "news")
            proxy.hold()
            reconnecting = 'aiostream_ds_streams_degraded{status="reconnecting"}'
            async with asyncio.timeout(15):
                while not (await grafana.metrics()).get(reconnecting):
                    await asyncio.sleep(0.02)
            proxy.restore()
            await connection.execute("SELECT 1")
            viewer.forget()
            viewer.rows.clear()
            await listening(connection, viewer, "news")


@pytest.mark.slow
async def test_a_burst_of_notifications_is_received_or_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    burst = "SELECT pg_notify('news', n::text) FROM generate_series(1, 2000) AS n"
    async with (
        empty_database(server) as connection,
        serving(server, {}, channels=["news"]) as grafana,
    ):
        viewer = await grafana.follow(channel("news"))
        await listening(connection, viewer, "news")
        await connection.execute(burst)
        await until(lambda: viewer.rows[-1].get("value") == 2000)
        monkeypatch.setattr(listener, "QUEUED", 10)
    async with (
        empty_database(server) as connection,
        serving(server, {}, channels=["news"]) as grafana,
    ):
        viewer = await grafana.follow(channel("news"))
        await listening(connection, viewer, "news")
        await connection.execute(burst)
        gaps = 0.0
        async with asyncio.timeout(15):
            while not gaps:
                await asyncio.sleep(0.05)
                gaps = (await grafana.metrics())["aiostream_ds_gaps_total"]
        assert len(viewer.rows) < 2000


async def test_a_notification_for_many_channels_reads_the_newest_key_once(server: Server):
    async with empty_database(server, READINGS) as connection, serving(server) as grafana:
        await connection.execute("INSERT INTO readings (n) VALUES (1)")
        reader = (await grafana.data_source(Postgres))._readers["readings"]
        statements = (await reader.state()).statements
        reads = 0
        newest = reader._newest

        async def counted(*arguments):
            nonlocal reads
            reads += 1
            return await newest(*arguments)

        reader._newest = counted
        found = await asyncio.gather(*(reader._shared_newest(statements) for _ in range(50)))
        assert reads == 1 and {cursor[1] for cursor in found} == {1}
        await connection.execute("INSERT INTO readings (n) VALUES (2)")
        assert (await reader._shared_newest(statements))[1] == 2


async def test_only_channels_of_the_settings_can_be_followed(server: Server):
    async with empty_database(server), serving(server, {}, channels=["news"]) as grafana:
        with pytest.raises(Refused):
            await grafana.follow(channel("other"))
        with pytest.raises(Refused):
            await grafana.follow(channel('news"; DROP TABLE x; --'))
        answer = await grafana.resource("forms/suggest?stream=notifications&field=channel&typed=n")
        assert answer.body == b'["news"]'


async def test_save_and_test_reports_what_can_be_done(server: Server):
    tables = {"readings": {**TABLE, "notify": "readings"}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables, channels=["news"]) as grafana,
    ):
        await connection.execute(INSERT, 1.0)
        ok, message = await grafana.health()
        assert ok
        health = await (await grafana.data_source(Postgres)).health()
        assert health.details["verboseMessage"].splitlines() == [
            "readings can: history, resume after outages, event times; cannot: publish",
            "notifications of news can: event times (of payloads with a time); cannot: history,"
            " resume after outages, publish",
        ]
        assert "cannot" not in message and ", as reader; 1 stream" in message


async def test_a_channel_that_nobody_follows_is_not_listened_to(server: Server):
    tables = {"readings": {**TABLE, "notify": "readings"}}
    async with (
        empty_database(server, READINGS) as connection,
        serving(server, tables) as grafana,
    ):
        source = await grafana.data_source(Postgres)
        with source._wakeups.of("readings"), source._wakeups.of("readings"):
            await until(lambda: "readings" in source._listener.followed)
        await until(lambda: not source._listener.followed)
        await nobody_connected(connection, "LISTEN%")
