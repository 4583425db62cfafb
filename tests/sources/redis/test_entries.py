"""Streams: history, live entries, exact panels, series."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from redis.asyncio import Redis as Client

from aiostream_ds._grafana import range_reading
from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.sources.redis import entry_reader, redis_source
from aiostream_ds.testing import QueryFailed, Refused
from tests.servers import Proxy, Redis

from .connecting import columns, encoded, first_row, serving, statuses, until

pytestmark = pytest.mark.slow  # real servers

QUERY = {"queryType": "entries", "stream": "orders:eu", "exact": True}
EXACT = f"x/entries/{encoded('orders:eu')}"
STOCK = EXACT.removeprefix("x/")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(entry_reader, "BLOCK", 0.1)
    monkeypatch.setattr(redis_source, "EXPAND", 0.2)
    monkeypatch.setattr(range_reading, "RANGE_SECONDS", 1e6)  # a busy machine reads all, too


async def add(client: Client, *numbers: int, name: str = "orders:eu") -> None:
    for number in numbers:
        await client.xadd(name, {"n": number, "side": "buy"})


async def rows_after(grafana, cursor, path=EXACT):
    answer = await grafana.resource(f"replay/rows?path={path}&after={cursor}")
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body)


async def test_a_panel_has_the_history_and_the_live_entries(server: Redis, client: Client):
    await add(client, 0, 1, 2)
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)["n"] == [0, 1, 2]
        assert columns(frame)["side"] == ["buy"] * 3
        assert columns(frame)["time"] == columns(frame)["id_ms"]
        assert frame.meta.custom["cursor"]["channel"] == f"ds/test/{EXACT}"
        viewer = await grafana.follow(EXACT, frame=frame)
        await first_row(viewer, lambda n: add(client, 3 + n))
        assert viewer.rows[0]["n"] >= 3, "no row of the history again"
        missed = await rows_after(grafana, frame.meta.custom["cursor"]["last"])
        assert missed["data"]["values"][3][0] == 3 and not missed["truncated"]


async def test_entries_of_one_millisecond_are_all_rows(server: Redis, client: Client):
    pipeline = client.pipeline()
    for number in range(500):
        pipeline.xadd("orders:eu", {"n": number})
    ids = await pipeline.execute()
    assert len({id.split(b"-")[0] for id in ids}) < 500
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)["n"] == list(range(500))


START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = round(START.timestamp() * 1_000)


async def fill(client: Client, count: int, lag: int = 0) -> None:
    """One entry a second; with a lag, it has a time of its own, so many seconds before its id."""
    for first in range(0, count, 10_000):
        pipeline = client.pipeline()
        for number in range(first, min(count, first + 10_000)):
            ms = START_MS + number * 1_000
            own = {"time": ms} if lag else {}
            pipeline.xadd("orders:eu", {"n": number, **own}, id=f"{ms + lag * 1_000}-0")
        await pipeline.execute()


def seconds_after(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.slow
async def test_a_history_has_the_entries_of_its_range(server: Redis, client: Client):
    await fill(client, 3_000)
    async with serving(server) as grafana:

        async def numbers(seconds, limit):
            (frame,) = await grafana.query(
                QUERY | {"exact": False},
                start=seconds_after(seconds),
                end=seconds_after(seconds + 1_500),
                max_data_points=limit,
            )
            return columns(frame)["n"]

        assert await numbers(1_000, 2_000) == list(range(1_000, 2_501))
        thinned = await numbers(1_000, 1_100)
        assert (thinned[0], thinned[-1]) == (1_000, 2_500) and 800 < len(thinned) <= 1_100
        assert await numbers(2_900, 2_000) == list(range(2_900, 3_000))


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0, 600, -600])
async def test_a_long_range_is_read_to_its_beginning(server: Redis, client: Client, lag):
    count = 25_000
    await fill(client, count, lag)
    async with serving(server) as grafana:
        for _ in range(2):
            (frame,) = await grafana.query(
                QUERY | {"exact": False},
                start=START,
                end=seconds_after(count + 1_000),
                max_data_points=1_000,
            )
            found = columns(frame)
            assert 500 < len(found["n"]) <= 1_000
            assert (found["n"][0], found["n"][-1]) == (0, count - 1)
            assert f"of {count:,} rows are drawn" in frame.meta.notices[0].text


@pytest.mark.slow
async def test_rows_after_a_cursor_come_in_pages(server: Redis, client: Client):
    pipeline = client.pipeline()
    for number in range(12_000):
        pipeline.xadd("orders:eu", {"n": number})
    await pipeline.execute()
    async with serving(server) as grafana:
        found, after = [], "-1"
        while True:
            page = await rows_after(grafana, after)
            found += page["data"]["values"][3]
            after = page["cursor"]["last"]
            if not page["more"]:
                break
        assert found == list(range(12_000))


async def test_an_alert_rule_gets_the_history(server: Redis, client: Client):
    await add(client, 1, 2)
    async with serving(server) as grafana:
        frames = await grafana.query(QUERY, user=None, headers={"FromAlert": "true"})
    assert [list(frame.fields[1].values) for frame in frames] == [[1, 2]]


async def test_several_panels_share_one_connection(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewers = [await grafana.follow(STOCK) for _ in range(5)]
        await first_row(viewers[0], lambda n: add(client, n))
        reading = [each for each in await client.client_list() if each["cmd"] == "xread"]
        assert len(reading) == 1
        for viewer in viewers[1:]:
            assert (await viewer.next())["n"] == viewers[0].rows[0]["n"]


async def test_the_connection_is_closed_with_the_run(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewer = await grafana.follow(STOCK)
        await first_row(viewer, lambda n: add(client, n))
        await grafana.change_settings({"host": "127.0.0.1", "port": 1})
        await until(lambda: _readers(client))


async def _readers(client: Client) -> bool:
    return not [each for each in await client.client_list() if each["cmd"] == "xread"]


async def test_a_panel_waits_for_a_stream_that_does_not_exist_yet(server: Redis, client: Client):
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        (notice,) = frame.meta.notices
        assert notice.text == "no stream 'orders:eu' yet; rows appear when it exists"
        viewer = await grafana.follow(EXACT)
        await until(lambda: statuses(viewer))
        assert statuses(viewer)[-1]["text"].startswith("no stream 'orders:eu' yet")
        await add(client, 1)
        await until(lambda: statuses(viewer)[-1] is None)


async def test_a_key_of_another_type_is_an_error_and_other_channels_go_on(
    server: Redis, client: Client
):
    await client.set("text", "hello")
    async with serving(server) as grafana:
        with pytest.raises(QueryFailed, match="WRONGTYPE"):
            await grafana.query(QUERY | {"stream": "text"})
        with pytest.raises(Refused, match="NOT_FOUND"):
            await grafana.follow(f"x/entries/{encoded('text')}")
        other = await grafana.follow(STOCK)
        viewer = await grafana.follow(f"x/entries/{encoded('later')}")
        await until(lambda: statuses(viewer))
        await client.set("later", "hello")
        await until(lambda: statuses(viewer)[-1]["severity"] == "error")
        assert "WRONGTYPE" in statuses(viewer)[-1]["text"]
        await first_row(other, lambda n: add(client, n))


async def test_a_field_may_hold_a_json_payload(server: Redis, client: Client):
    await client.xadd("orders:eu", {"payload": '{"n": 7, "deep": {"x": 1}}', "host": "a"})
    await client.xadd("orders:eu", {"payload": "[{},", "host": "b"})
    await client.xadd("orders:eu", {"payload": '[{"n": 1}, {"n": 2}]', "host": "c"})
    async with serving(server, payloadField="payload") as grafana:
        (frame,) = await grafana.query(QUERY)
        found = columns(frame)
        assert (found["n"], found["deep.x"], found["host"]) == ([7], [1], ["a"])
        (notice,) = frame.meta.notices
        assert notice.text.startswith("2 messages and rows were left out")
        missed = await rows_after(grafana, "-1")
        assert missed["cursor"]["last"] > frame.meta.custom["cursor"]["last"] or not missed["more"]


@pytest.mark.slow
async def test_an_entry_of_ten_megabytes_is_left_out_and_counted(server: Redis, client: Client):
    await client.xadd("orders:eu", {"blob": b"x" * 10_000_000})
    await add(client, 1)
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)["n"] == [1]
        assert "maxMessage" in frame.meta.notices[0].text
        viewer = await grafana.follow(EXACT, frame=frame)
        await first_row(viewer, lambda n: add(client, 2 + n))
        await client.xadd("orders:eu", {"blob": b"x" * 10_000_000})
        await add(client, 100)
        while (await viewer.next())["n"] != 100:
            pass
        await until(lambda: statuses(viewer))
        assert "maxMessage" in statuses(viewer)[-1]["text"]


@pytest.mark.slow
async def test_entries_that_are_trimmed_before_they_are_read_are_counted(
    server: Redis, client: Client
):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(EXACT)
            await add(client, 0)
            await until(lambda: viewer.position is not None and viewer.position.value > (0, 0))
            last = viewer.position
            source = await grafana.data_source(Source)
            await until(lambda: source._positions["orders:eu"].added == 1)
            proxy.refuse()  # until they are trimmed
            await add(client, *range(1, 21))
            await client.xtrim("orders:eu", maxlen=5, approximate=False)
            proxy.restore()
            removed = "15 entries of 'orders:eu' were removed before they were read"
            await until(lambda: any(removed in (s or {}).get("text", "") for s in statuses(viewer)))
            assert last is not None
            page = await rows_after(grafana, f"{last.value[0]:016}-{last.value[1]:016}")
            assert page["truncated"] and len(page["data"]["values"][0]) == 5
            metrics = await grafana.metrics()
            assert metrics["aiostream_ds_gaps_total"] == 1
            assert metrics["aiostream_ds_rows_missing_total"] == 15
            assert "15 entries were removed before they were read" in (await grafana.health())[1]


@pytest.mark.slow
async def test_ids_that_restart_begin_another_epoch(server: Redis, client: Client):
    await add(client, 1, 2, 3)
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        viewer = await grafana.follow(EXACT, frame=frame)
        await first_row(viewer, lambda n: add(client, 4 + n))
        await client.delete("orders:eu")
        await client.xadd("orders:eu", {"n": 100, "side": "new"}, id="5-1")
        await client.client_kill_filter(_type="normal", skipme=True)
        before = frame.meta.custom["cursor"]["epoch"]
        await until(lambda: viewer.position.epoch != before)
        (frame,) = await grafana.query(QUERY, start=datetime(1970, 1, 1, tzinfo=UTC))
        assert frame.meta.custom["cursor"]["epoch"] == viewer.position.epoch != before
        assert columns(frame)["n"] == [100]


async def test_several_streams_are_series(server: Redis, client: Client):
    names = ["orders:eu", "orders:us"]
    for name in names:
        await add(client, 1, 2, name=name)
    async with serving(server) as grafana:
        query = {"queryType": "streams", "streams": "orders:*, text"}
        await client.set("text", "hello")
        (frame,) = await grafana.query(query)
        assert {field.labels.get("stream") for field in frame.fields[1:]} == set(names)
        assert any("WRONGTYPE" in notice.text for notice in frame.meta.notices)
        viewer = await grafana.follow(f"streams/{encoded('orders:*, text')}")
        await first_row(viewer, lambda n: add(client, n, name="orders:us"))
        await client.xadd("orders:asia", {"n": 5})  # found later, from its beginning
        with anyio.fail_after(15):
            while not any("asia" in key for row in viewer.rows for key in row):
                await asyncio.sleep(0.05)


async def test_streams_are_suggested(server: Redis, client: Client):
    await add(client, 1)
    await add(client, 1, name="a *[name]")
    await client.set("text", "hello")
    async with serving(server) as grafana:

        async def suggested(typed):
            answer = await grafana.resource(
                f"forms/suggest?stream=entries&field=stream&typed={typed}"
            )
            return msgspec.json.decode(answer.body)

        assert await suggested("") == ["a *[name]", "orders:eu"]
        assert await suggested("*[") == ["a *[name]"]
        assert await suggested("ders") == ["orders:eu"]


@pytest.mark.slow
async def test_every_entry_is_a_row_or_counted(server: Redis, client: Client):
    random.seed(3)

    def text() -> bytes:
        kind = random.random()
        if kind < 0.2:
            return random.randbytes(random.randrange(20))
        if kind < 0.3:
            return b"x" * random.choice([0, 300, 5_000])
        return random.choice(
            [
                b"time",
                b"id_ms",
                b"id_seq",
                b"stream",
                b"",
                b"1",
                b"-1e999",
                b"nan",
                b"null",
                b"{}",
                b"[1]",
                b'{"a":{"b":[]}}',
                "ü✓".encode(),
                b"\x00",
            ]
        )

    count = 2_000
    pipeline = client.pipeline()
    for _ in range(count):
        words = [word for _ in range(random.randrange(5)) for word in (text(), text())]
        words += [b"always", b"1"]
        pipeline.execute_command("XADD", "orders:eu", "*", *words)
    await pipeline.execute()
    for settings in ({}, {"payloadField": "1"}, {"columns": {"1": "number"}, "others": False}):
        async with serving(server, **settings) as grafana:
            (frame,) = await grafana.query(QUERY, max_data_points=10_000)
            source = await grafana.data_source(Source)
            assert frame.rows + source.errors.messages == count
            assert frame.rows > 100
            found = columns(frame)
            pairs = list(zip(found["id_ms"], found["id_seq"], strict=True))
            assert pairs == sorted(set(pairs))
            page, rows = await rows_after(grafana, "-1"), 0
            rows = len(page["data"]["values"][0])
            assert rows == frame.rows and not page["more"]


async def test_a_field_that_an_entry_has_twice_is_two_columns(server: Redis, client: Client):
    await client.execute_command("XADD", "orders:eu", "*", "n", "1", "n", "2")
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        assert (columns(frame)["n"], columns(frame)["n_"]) == ([1], [2])


async def test_a_name_that_is_too_long_is_an_error_that_states_the_limit(server: Redis):
    async with serving(server) as grafana:
        for name in ("x" * 100, "ü:✓ \n\0/" * 5):
            await grafana.query(QUERY | {"stream": name})
        with pytest.raises(QueryFailed, match="155|160"):
            await grafana.query(QUERY | {"stream": "x" * 120})
        with pytest.raises(QueryFailed, match="stream must be a string that is not empty"):
            await grafana.query(QUERY | {"stream": ""})
