"""Streams of JetStream: history, live messages, exact panels, series, gaps."""

import asyncio
import json
import shutil
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import count

import msgspec
import pytest

from aiostream_ds._grafana import range_reading
from aiostream_ds.sources.nats import Nats as Source
from aiostream_ds.sources.nats import live_messages, ordered_consumer, stream_history
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory
from tests.cluster.cluster_access import access
from tests.cluster.model_engine import ModelServer
from tests.servers import Proxy

from .connecting import (
    NatsToRead,
    Publisher,
    columns,
    first_row,
    messages_of,
    number_of,
    numbers,
    publishing,
    serving,
    settings_for,
    status_texts,
    statuses,
    until,
)

pytestmark = pytest.mark.slow  # real servers

QUERY = {"queryType": "messages", "stream": "ORDERS", "exact": True}
STOCK = messages_of()
EXACT = f"x/{STOCK}"
N = number_of()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(ordered_consumer, "PULL_SECONDS", 0.2)
    monkeypatch.setattr(live_messages, "MISSING_WAIT", 0.1)
    monkeypatch.setattr(live_messages, "CHECK", 0.1)
    monkeypatch.setattr(range_reading, "RANGE_SECONDS", 1e6)  # a busy machine reads all, too


async def rows_after(grafana, cursor, path=EXACT):
    answer = await grafana.resource(f"replay/rows?path={path}&after={cursor}")
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body)


async def test_a_panel_has_the_history_and_the_live_messages(
    server: NatsToRead, publisher: Publisher
):
    await publisher.store(0, 1, 2)
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)[N] == [0, 1, 2]
        assert columns(frame)["sequence"] == [1, 2, 3]
        assert abs(columns(frame)["time"][0] / 1_000 - datetime.now().timestamp()) < 60
        assert frame.meta.custom["cursor"]["last"] == 3
        viewer = await grafana.follow(EXACT, frame=frame)
        await first_row(viewer, lambda n: publisher.store(3 + n))
        assert numbers(viewer)[0] >= 3, "no row of the history again"
        missed = await rows_after(grafana, 3)
        assert missed["cursor"]["prev"] == 3 and not missed["truncated"]
        assert missed["data"]["values"][1][0] == 4, "the sequence"


async def test_a_history_is_whole_although_reads_end_before_the_server_has_sent_all(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    await publisher.store(*range(900))
    pulls: list[bool] = []
    pull = ordered_consumer.OrderedConsumer.pull

    async def stalled(self, limit):
        pulls.append(len(pulls) % 2 == 0)
        seconds = 1e-6 if pulls[-1] else 2.0
        monkeypatch.setattr(ordered_consumer, "PULL_SECONDS", seconds)
        async with aclosing(pull(self, limit)) as parts:
            async for part in parts:
                yield part

    monkeypatch.setattr(ordered_consumer.OrderedConsumer, "pull", stalled)
    async with serving(server) as grafana:
        found: list[int] = []
        while not found or found[-1] < 900:
            page = await rows_after(grafana, found[-1] if found else 0)
            found += page["data"]["values"][1]
        assert found == list(range(1, 901))
    assert True in pulls


async def test_a_history_is_an_error_when_pending_messages_do_not_come(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    await publisher.store(*range(5))
    pull = ordered_consumer.OrderedConsumer.pull

    async def nothing(self, limit):
        async with aclosing(pull(self, limit)) as parts:
            async for _ in parts:
                pass
        self.pending, self.is_at_end, self.is_stalled = 5, False, True
        return
        yield

    monkeypatch.setattr(ordered_consumer.OrderedConsumer, "pull", nothing)
    async with serving(server) as grafana:
        with pytest.raises(QueryFailed, match="are pending and do not come, after 3 attempts"):
            await grafana.query(QUERY)


async def test_history_and_live_rows_join_exactly_while_messages_are_stored(
    server: NatsToRead, publisher: Publisher
):
    stored = 0
    is_enough = False

    async def write():
        nonlocal stored
        while not is_enough:
            await publisher.store(stored)
            stored += 1

    async with serving(server) as grafana:
        writing = asyncio.create_task(write())
        await asyncio.sleep(0)
        while not (await rows_after(grafana, 0)).get("data", {}).get("values"):
            await asyncio.sleep(0.01)
        (frame,) = await grafana.query(QUERY)
        viewer = await grafana.follow(EXACT, frame=frame)
        await until(lambda: len(numbers(viewer)) > 50)
        is_enough = True
        await writing
        drawn = columns(frame)[N]
        await until(lambda: numbers(viewer)[-1] == stored - 1)
        if numbers(viewer)[0] > drawn[-1] + 1:  # as a panel does
            missed = await rows_after(grafana, len(drawn))
            drawn += [n for n in missed["data"]["values"][2] if n < numbers(viewer)[0]]
        later = [number for number in numbers(viewer) if number > drawn[-1]]
        assert drawn + later == list(range(stored))


async def test_a_filter_selects_subjects_and_braces_name_labels(
    server: NatsToRead, publisher: Publisher
):
    for number in range(6):
        await publisher.store(number, subject=f"orders.{'eu' if number % 2 else 'us'}.new")
    query = QUERY | {"filter": "orders.eu.*"}
    async with serving(server) as grafana:
        (frame,) = await grafana.query(query)
        assert columns(frame)[number_of("orders.eu.new")] == [1, 3, 5]
        assert columns(frame)["sequence"] == [2, 4, 6]
        (frame,) = await grafana.query(QUERY | {"filter": "orders.{region}.new"})
        assert {'n {region="us"}', 'n {region="eu"}'} <= columns(frame).keys()
        path = f"x/{messages_of('ORDERS', 'orders.eu.*')}"
        viewer = await grafana.follow(path)
        await publisher.store(6, subject="orders.us.new")
        await first_row(viewer, lambda n: publisher.store(7 + n, subject="orders.eu.new"))
        assert 6 not in numbers(viewer)
        page = await rows_after(grafana, 2, path)
        assert page["data"]["values"][1][:2] == [4, 6] and not page["truncated"]


async def test_a_history_has_the_messages_of_its_range_and_its_newest_rows(
    server: NatsToRead, publisher: Publisher
):
    await publisher.store(*range(3_000))
    await asyncio.sleep(0.01)
    middle = datetime.now(UTC)
    await asyncio.sleep(0.01)
    await publisher.store(*range(3_000, 3_100))
    start = datetime(2020, 1, 1, tzinfo=UTC)
    async with serving(server) as grafana:

        async def found(limit, exact=False, **span):
            (frame,) = await grafana.query(QUERY | {"exact": exact}, max_data_points=limit, **span)
            return columns(frame)[N]

        assert await found(5_000, start=start) == list(range(3_100))
        assert await found(5_000, start=start, end=middle) == list(range(3_000))
        assert await found(5_000, start=middle) == list(range(3_000, 3_100))
        thinned = await found(500, start=datetime.now(UTC) - timedelta(seconds=10))
        assert (thinned[0], thinned[-1]) == (0, 3_099) and 2 < len(thinned) <= 500


async def test_a_long_range_is_read_in_windows_that_are_divided(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    monkeypatch.setattr(stream_history, "WINDOW_MESSAGES", 100)
    monkeypatch.setattr(stream_history, "WINDOW_BYTES", 2_000)
    for first in range(0, 2_000, 10):
        await publisher.store(*range(first, first + 9))
        await publisher.store(first + 9, subject="orders.rare")
    async with serving(server) as grafana:
        for filter, expected in ((">", range(2_000)), ("orders.rare", range(9, 2_000, 10))):
            (frame,) = await grafana.query(
                QUERY | {"filter": filter, "exact": False}, max_data_points=10_000
            )
            found = [v for name, values in columns(frame).items() if "n " in name for v in values]
            assert sorted(v for v in found if v is not None) == list(expected)


async def test_rows_after_a_cursor_come_in_pages(server: NatsToRead, publisher: Publisher):
    await publisher.store(*range(12_000))
    async with serving(server) as grafana:
        found, after = [], 0
        while True:
            page = await rows_after(grafana, after)
            found += page["data"]["values"][1]
            after = page["cursor"]["last"]
            if not page["more"]:
                break
        assert found == list(range(1, 12_001))


async def test_rows_have_their_own_times_if_messages_have_them(
    server: NatsToRead, publisher: Publisher
):
    own = 1_700_000_000_000
    await publisher.publish("orders.eu", {"n": 1, "time": own})
    async with serving(server) as grafana:
        for _ in range(2):  # the second time it is known how late messages are
            (frame,) = await grafana.query(QUERY, start=datetime(2020, 1, 1, tzinfo=UTC))
            assert columns(frame)["time"] == [own]


async def test_panels_share_one_connection_and_a_consumer_for_each_channel(
    server: NatsToRead, publisher: Publisher
):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewers = [await grafana.follow(STOCK) for _ in range(3)]
            viewers.append(await grafana.follow(messages_of("ORDERS", "orders.>")))
            for viewer in viewers:
                await first_row(viewer, lambda n: publisher.store(n))
            await grafana.query(QUERY)
            assert (proxy.open, proxy.accepted) == (1, 1)
            assert server.consumer_count() == 2
        await until(lambda: not server.consumer_count())


async def test_the_grafana_servers_of_a_cluster_share_one_consumer(
    server: NatsToRead, publisher: Publisher
):
    engine, nodes = ModelServer(), count(1)
    arguments = {
        "settings": settings_for(server, share=True),
        "secrets": {"password": server.user_password},
        "cluster": lambda: access(engine, next(nodes), None),
    }
    async with serve_in_memory(Source, **arguments) as a, serve_in_memory(Source, **arguments) as b:
        viewers = [await each.follow(STOCK) for each in (a, b)]
        for viewer in viewers:
            await first_row(viewer, lambda n: publisher.store(n))
        await publisher.store(1_000)
        for viewer in viewers:
            await until(lambda viewer=viewer: numbers(viewer)[-1] == 1_000)
        assert server.consumer_count() == 1


async def test_a_panel_waits_for_a_stream_that_does_not_exist_yet(server: NatsToRead):
    query = QUERY | {"stream": "LATER"}
    async with serving(server) as grafana:
        (frame,) = await grafana.query(query)
        (notice,) = frame.meta.notices
        assert notice.text == "no stream 'LATER' yet; rows appear when it exists"
        viewer = await grafana.follow(f"x/{messages_of('LATER')}")
        await until(lambda: statuses(viewer))
        assert status_texts(viewer).startswith("no stream 'LATER' yet")
        server.make_stream("LATER", subjects=["later"])
        await until(lambda: statuses(viewer)[-1] is None)
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0
        server.call("later", b'{"n": 1}')
        await until(lambda: numbers(viewer) == [1])


async def test_a_stream_that_was_made_again_begins_another_epoch(
    server: NatsToRead, publisher: Publisher
):
    await publisher.store(0, 1, 2)
    async with serving(server) as grafana:
        (frame,) = await grafana.query(QUERY)
        before = frame.meta.custom["cursor"]["epoch"]
        viewer = await grafana.follow(EXACT, frame=frame)
        await first_row(viewer, lambda n: publisher.store(3 + n))
        server.make_stream()
        await publisher.store(100)
        await until(lambda: viewer.position.epoch != before)
        (frame,) = await grafana.query(QUERY)
        assert frame.meta.custom["cursor"]["epoch"] == viewer.position.epoch != before
        assert columns(frame)[N] == [100]
        await until(lambda: "was made again" in status_texts(viewer))
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1


async def test_a_stream_whose_newest_messages_the_server_has_lost_begins_another_epoch(tmp_path):
    with NatsToRead() as own:
        own.make_stream()
        async with publishing(own) as publisher, serving(own) as grafana:
            await publisher.store(0, 1, 2)
            own.stop()
            shutil.copytree(own.folder / "jetstream", tmp_path / "backup")
            own.start()
            viewers = [await grafana.follow(f"x/{messages_of('ORDERS', f)}") for f in (">", "*.eu")]
            for viewer in viewers:
                await first_row(viewer, lambda n: publisher.store(3 + n))
            before = viewers[0].position.epoch
            own.stop()
            shutil.rmtree(own.folder / "jetstream")
            shutil.copytree(tmp_path / "backup", own.folder / "jetstream")
            own.start()
            for viewer in viewers:
                await until(lambda viewer=viewer: "are gone" in status_texts(viewer))
            await publisher.store(100)
            await until(lambda: viewers[0].position.epoch != before)
            for viewer in viewers:
                await until(lambda viewer=viewer: numbers(viewer)[-1] == 100)
            (frame,) = await grafana.query(QUERY)
            found = frame.meta.custom["cursor"]
            assert {viewer.position.epoch for viewer in viewers} == {found["epoch"]}
            assert columns(frame)[N] == [0, 1, 2, 100]


async def test_messages_that_are_removed_before_they_are_read_are_counted(
    server: NatsToRead, publisher: Publisher
):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(EXACT)
            await first_row(viewer, lambda n: publisher.store(n))
            await until(lambda: numbers(viewer)[-1] == viewer.position.value - 1)
            last = viewer.position.value
            proxy.refuse()  # until they are removed
            await publisher.store(*range(1_000, 1_020))
            server.purge_stream(seq=last + 16)
            proxy.restore()
            removed = "15 messages of 'ORDERS' were removed before they were read"
            await until(lambda: removed in status_texts(viewer))
            page = await rows_after(grafana, last)
            assert page["truncated"] and len(page["data"]["values"][0]) == 5
            metrics = await grafana.metrics()
            assert metrics["aiostream_ds_gaps_total"] == 1
            assert metrics["aiostream_ds_rows_missing_total"] == 15
            assert "15 messages were removed before they were read" in (await grafana.health())[1]


async def test_that_other_subjects_were_removed_is_no_gap(server: NatsToRead, publisher: Publisher):
    path = messages_of("ORDERS", "orders.rare")
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(f"x/{path}")
            await first_row(viewer, lambda n: publisher.store(n, subject="orders.rare"))
            last = viewer.position.value
            await publisher.store(*range(100))
            source = await grafana.data_source(Source)
            position = source._positions["ORDERS", "orders.rare"]
            await until(lambda: position.complete >= last + 100)
            server.purge_stream(seq=last + 101)
            proxy.cut()
            before = len(numbers(viewer))

            async def is_received() -> bool:
                await publisher.store(1_000 + len(numbers(viewer)), subject="orders.rare")
                return len(numbers(viewer)) > before

            await until(is_received)
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0
            assert "removed" not in status_texts(viewer)


async def test_that_a_mirror_has_some_subjects_only_is_no_gap(
    server: NatsToRead, publisher: Publisher
):
    mirror = {"name": "ORDERS", "filter_subject": "orders.eu"}
    server.make_stream("MIRROR", subjects=None, mirror=mirror)
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"x/{messages_of('MIRROR')}")
        await first_row(viewer, lambda n: publisher.store(n))
        await publisher.store(*range(1_000, 1_010), subject="orders.us")
        await publisher.store(2_000)
        await until(lambda: numbers(viewer)[-1] == 2_000)
        assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0
        assert "removed" not in status_texts(viewer)


async def test_messages_that_are_not_rows_are_counted_and_the_stream_goes_on(
    server: NatsToRead, publisher: Publisher
):
    bad = [b"[{},", b"", b"\xff\xfe", b'[{"n": 1}, {"n": 2}]', b"x" * 900_000, b'{"n": 1e999}']
    async with serving(server, maxMessage=100_000) as grafana:
        viewer = await grafana.follow(EXACT)
        await first_row(viewer, lambda n: publisher.store(n))
        for payload in bad:
            await publisher.publish("orders.eu", payload)
        # a publisher may write anything as headers, also a status
        await publisher.publish("orders.eu", b'{"n": 70}', {"": "\x00\xff"})
        await publisher.store(77)
        await until(lambda: 77 in numbers(viewer))
        assert 70 in numbers(viewer)
        await until(lambda: "messages and rows left out" in status_texts(viewer))
        ok, text = await grafana.health()
        assert ok and "left out; the first of orders.eu" in text
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)[N][-1] == 77 and "left out" in frame.meta.notices[0].text


async def test_a_message_that_is_larger_than_a_pull_is_read(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    monkeypatch.setattr(ordered_consumer, "PULL_BYTES", 1_000)
    async with serving(server) as grafana:
        viewer = await grafana.follow(EXACT)
        await first_row(viewer, lambda n: publisher.store(n))
        await publisher.publish("orders.eu", {"n": 500, "text": "x" * 5_000})
        await publisher.store(501, 502)
        await until(lambda: numbers(viewer)[-3:] == [500, 501, 502])
        (frame,) = await grafana.query(QUERY)
        assert columns(frame)[N][-3:] == [500, 501, 502]


async def test_a_consumer_that_is_removed_is_made_again(server: NatsToRead, publisher: Publisher):
    async with serving(server) as grafana:
        viewer = await grafana.follow(STOCK)
        await first_row(viewer, lambda n: publisher.store(n))
        (name,) = server.call("$JS.API.CONSUMER.NAMES.ORDERS")["consumers"]
        server.call(f"$JS.API.CONSUMER.DELETE.ORDERS.{name}")
        await publisher.store(100, 101)
        await until(lambda: numbers(viewer)[-2:] == [100, 101])
        assert numbers(viewer) == sorted(set(numbers(viewer)))
        assert (await grafana.metrics())["aiostream_ds_stream_retries_total"] == 0


async def test_channels_with_one_filter_read_independently(
    server: NatsToRead, publisher: Publisher
):
    async with serving(server) as grafana:
        source = await grafana.data_source(Source)
        after = await source.newest_sequence("ORDERS")

        def run():
            position = source._position("ORDERS", "orders.*", after)
            return aclosing(
                live_messages.live_messages(source._link, "ORDERS", "orders.*", position)
            )

        async def read(parts, count):
            found = []
            while len(found) < count:
                found += [each.sequence for each in (await anext(parts)).messages]
            return found

        async with run() as first, run() as second:  # as orders.{region} and orders.{country}
            await anext(second)
            await publisher.store(0, 1, 2)
            assert await read(first, 3) == [1, 2, 3]
            for name in server.call("$JS.API.CONSUMER.NAMES.ORDERS")["consumers"]:
                server.call(f"$JS.API.CONSUMER.DELETE.ORDERS.{name}")
            await publisher.store(3)
            assert await read(second, 4) == [1, 2, 3, 4]


async def test_a_consumer_is_removed_whose_reader_is_cancelled_while_it_is_made(
    server: NatsToRead, monkeypatch
):
    made = asyncio.Event()
    call_api = ordered_consumer.call_api

    async def call_and_wait(*arguments):
        await call_api(*arguments)
        made.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ordered_consumer, "call_api", call_and_wait)
    async with serving(server) as grafana:
        query = asyncio.create_task(grafana.query(QUERY))
        await made.wait()
        assert server.consumer_count() == 1
        query.cancel()
        await asyncio.wait([query])
        await until(lambda: server.consumer_count() == 0)


async def test_a_stream_that_cannot_be_read_is_an_error_and_other_channels_go_on(
    server: NatsToRead, publisher: Publisher
):
    server.make_stream("WORK", subjects=["work.>"], retention="workqueue")
    async with serving(server) as grafana:
        server.call("work.a", b'{"n": 1}')
        with pytest.raises(QueryFailed, match="'WORK' cannot be read: its retention is workqueue"):
            await grafana.query(QUERY | {"stream": "WORK"})
        viewer = await grafana.follow(f"x/{messages_of('WORK')}")
        other = await grafana.follow(STOCK)
        await first_row(other, lambda n: publisher.store(n))
        await until(lambda: "workqueue" in status_texts(viewer))


async def test_sequences_that_no_cursor_can_have_are_refused(server: NatsToRead):
    server.make_stream("FAR", subjects=["far"], first_seq=1 << 53)
    async with serving(server) as grafana:
        server.call("far", b'{"n": 1}')
        with pytest.raises(QueryFailed, match=r"must be less than 9,007,199,254,740,992, got"):
            await grafana.query(QUERY | {"stream": "FAR"})
        viewer = await grafana.follow(f"x/{messages_of('FAR')}")
        await until(lambda: "sequences must be" in status_texts(viewer))


async def test_a_stream_goes_on_when_it_may_have_a_consumer_again(
    server: NatsToRead, publisher: Publisher
):
    server.make_stream(max_consumers=1)
    config = {"name": "other", "ack_policy": "none"}
    arguments = json.dumps({"stream_name": "ORDERS", "config": config}).encode()
    server.call("$JS.API.CONSUMER.CREATE.ORDERS.other", arguments)
    async with serving(server) as grafana:
        viewer = await grafana.follow(EXACT)
        await until(lambda: "maximum consumers limit" in status_texts(viewer))
        server.call("$JS.API.CONSUMER.DELETE.ORDERS.other")
        await first_row(viewer, lambda n: publisher.store(n))


async def test_what_is_not_a_stream_or_a_subject_is_refused(server: NatsToRead):
    async with serving(server) as grafana:
        with pytest.raises(QueryFailed, match="must be the name of a stream"):
            await grafana.query(QUERY | {"stream": "A.B"})
        with pytest.raises(QueryFailed, match="empty token"):
            await grafana.query(QUERY | {"filter": "a..b"})
        for path in (messages_of("A.B"), messages_of("ORDERS", "a b")):
            with pytest.raises(Refused, match="NOT_FOUND"):
                await grafana.follow(f"x/{path}")


async def test_streams_and_their_subjects_are_suggested(server: NatsToRead, publisher: Publisher):
    server.make_stream("METRICS", subjects=["metrics.>"])
    await publisher.store(1, subject="orders.eu")
    await publisher.store(1, subject="orders.us")
    async with serving(server) as grafana:

        async def suggested(field, typed, stream="ORDERS"):
            url = f"forms/suggest?stream=messages&field={field}&typed={typed}&values="
            answer = await grafana.resource(url + json.dumps({"stream": stream}))
            return msgspec.json.decode(answer.body)

        assert await suggested("stream", "") == ["METRICS", "ORDERS"]
        assert await suggested("stream", "RDE") == ["ORDERS"]
        assert await suggested("filter", "") == [">", "orders.eu", "orders.us"]
        assert await suggested("filter", "us") == ["orders.us"]
        assert await suggested("filter", "", "METRICS") == [">", "metrics.>"]
        assert await suggested("filter", "", "NONE") == [">"]


async def test_an_alert_rule_gets_the_history(server: NatsToRead, publisher: Publisher):
    await publisher.store(1, 2)
    async with serving(server) as grafana:
        frames = await grafana.query(QUERY, user=None, headers={"FromAlert": "true"})
    assert [list(frame.fields[1].values) for frame in frames] == [[1, 2]]
