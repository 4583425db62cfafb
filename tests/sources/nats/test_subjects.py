"""Subjects without a stream: wildcards, series, sharing, gaps, suggestions."""

import asyncio

import msgspec
import pytest

from aiostream_ds.sources.nats import server_link, subjects_seen
from tests.servers import Proxy

from .connecting import (
    NatsToRead,
    Publisher,
    first_row,
    number_of,
    numbers,
    serving,
    status_texts,
    subjects_of,
    until,
)

pytestmark = pytest.mark.slow  # real servers

CLIMATE = subjects_of("home.kitchen")


async def publish(publisher: Publisher, number: int, subject: str = "home.kitchen") -> None:
    await publisher.publish(subject, {"n": number})


async def test_subjects_share_one_connection(server: NatsToRead, publisher: Publisher):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            one, two = await grafana.follow(CLIMATE), await grafana.follow(CLIMATE)
            other = await grafana.follow(subjects_of("home.hall"))
            await first_row(one, lambda n: publish(publisher, n))
            await first_row(other, lambda n: publish(publisher, n, "home.hall"))
            assert numbers(two) == numbers(one)
            assert (proxy.open, proxy.accepted) == (1, 1)


async def test_the_connection_is_closed_when_nothing_uses_it(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    monkeypatch.setattr(server_link, "LINGER", 0.1)
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            await grafana.query({"queryType": "messages", "stream": "ORDERS"})
            assert proxy.accepted == 1
            await until(lambda: proxy.open == 0)
            await grafana.query({"queryType": "messages", "stream": "ORDERS"})
            assert proxy.accepted == 2


@pytest.mark.parametrize("subject", ["home.*", "home.>"])
async def test_the_subjects_of_a_wildcard_are_series(
    server: NatsToRead, publisher: Publisher, subject: str
):
    async with serving(server) as grafana:
        viewer = await grafana.follow(subjects_of(subject))
        await first_row(viewer, lambda n: publish(publisher, n))
        await publish(publisher, 500, "home.hall")
        await until(lambda: 500 in numbers(viewer))
        assert viewer.rows[-1][number_of("home.hall")] == 500
        assert {field.labels["subject"] for field in viewer.fields[1:]} == {
            "home.kitchen",
            "home.hall",
        }


async def test_named_tokens_are_labels(server: NatsToRead, publisher: Publisher):
    async with serving(server) as grafana:
        viewer = await grafana.follow(subjects_of("home.{place}"))
        await first_row(viewer, lambda n: publish(publisher, n))
        assert viewer.fields[1].labels == {"place": "kitchen"}


async def test_messages_of_all_formats_become_rows_and_bad_ones_are_counted(
    server: NatsToRead, publisher: Publisher
):
    bad = b"[{},", b"\xff\xfe", b"x" * 5_000
    async with serving(server, maxMessage=1_000) as grafana:
        viewer = await grafana.follow(f"x/{CLIMATE}")
        await first_row(viewer, lambda n: publish(publisher, n))
        for payload in (b"21", b"", b'[{"n": 31}, {"n": 32}]', *bad):
            await publisher.publish("home.kitchen", payload)
        await publisher.publish("home.kitchen", b'{"n": 41}', {"": "\x00\xff"})
        await until(lambda: numbers(viewer)[-1] == 41)
        assert numbers(viewer)[-4:] == [21, 31, 32, 41]
        await until(lambda: "messages and rows left out" in status_texts(viewer))
        ok, text = await grafana.health()
        assert ok and "left out; the first of home.kitchen: invalid JSON" in text


async def test_a_wildcard_gets_neither_answers_nor_messages_that_others_read_from_a_stream(
    server: NatsToRead, publisher: Publisher
):
    await publisher.store(1, 2, 3)
    server.rights = {"publish": [">"], "subscribe": [">"]}
    server.reload()
    async with serving(server) as grafana:
        viewer = await grafana.follow(subjects_of(">"))
        await first_row(viewer, lambda n: publish(publisher, 10 + n))
        await grafana.query({"queryType": "messages", "stream": "ORDERS"})
        await publish(publisher, 500)
        await until(lambda: 500 in numbers(viewer))
        assert min(numbers(viewer)) >= 10
        labels = [field.labels["subject"] for field in viewer.fields[1:]]
        assert set(labels) == {"home.kitchen"}
    server.rights = NatsToRead.RIGHTS
    server.reload()


async def test_a_subject_that_the_user_may_not_read_is_refused_alone(
    server: NatsToRead, publisher: Publisher
):
    async with serving(server) as grafana:
        other = await grafana.follow(f"x/{subjects_of('secret.>')}")
        viewer = await grafana.follow(CLIMATE)
        await first_row(viewer, lambda n: publish(publisher, n))
        await until(lambda: status_texts(other))
        assert 'Permissions Violation for Subscription to "secret.>"' in status_texts(other)


@pytest.mark.parametrize("subject", ['secret."a"', "secret.\\a", "secret.ä"])
async def test_a_refused_subject_is_found_as_the_server_quotes_it(server: NatsToRead, subject):
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"x/{subjects_of(subject)}")
        await until(lambda: "Permissions Violation for Subscription" in status_texts(viewer))


async def test_a_lost_connection_is_a_gap_that_panels_show(
    server: NatsToRead, publisher: Publisher
):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(f"x/{CLIMATE}")
            await first_row(viewer, lambda n: publish(publisher, n))
            proxy.cut()
            await publish(publisher, 500)
            number = len(numbers(viewer))
            while len(numbers(viewer)) == number:
                await publish(publisher, 1_000)
                await asyncio.sleep(0.05)
            await until(lambda: "may be missing: the connection was lost" in status_texts(viewer))
            assert 500 not in numbers(viewer)
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
            assert "1 gap in which" in (await grafana.health())[1]


async def test_a_stream_that_is_too_slow_loses_the_oldest_messages_and_shows_it(
    server: NatsToRead, publisher: Publisher, monkeypatch
):
    monkeypatch.setattr(server_link, "QUEUE", 100)
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"x/{CLIMATE}")
        await first_row(viewer, lambda n: publish(publisher, n))
        async with publisher.link.connection() as connection:
            for number in range(5_000):  # more than are read in a step of the event loop
                await connection.publish("home.kitchen", b'{"n": %d}' % number, {})
        await until(lambda: 4_999 in numbers(viewer))
        await until(lambda: "they arrive faster than they are read" in status_texts(viewer))
        metrics = await grafana.metrics()
        dropped = metrics['aiostream_ds_dropped_total{reason="upstream"}']
        assert dropped and dropped + len(numbers(viewer)) >= 5_000


async def test_subjects_are_suggested(server: NatsToRead, publisher: Publisher, monkeypatch):
    monkeypatch.setattr(subjects_seen, "AGE", 0.0)
    monkeypatch.setattr(subjects_seen, "SECONDS", 0.2)

    async def suggested(grafana, typed: str) -> list[str]:
        url = f"forms/suggest?stream=subjects&field=subject&typed={typed}"
        return msgspec.json.decode((await grafana.resource(url)).body)

    async with serving(server, discover="home.>") as grafana:
        found: list[str] = []
        while len(found) < 2:
            asking = asyncio.create_task(suggested(grafana, "home"))
            while not asking.done():
                await publish(publisher, 1)
                await publish(publisher, 1, "home.hall")
                await asyncio.sleep(0.02)
            found = asking.result()
        assert found == ["home.hall", "home.kitchen"]
        assert await suggested(grafana, "hall") == ["home.hall"]
    for discover in ("", "secret.>"):  # none, and one that the user may not read
        async with serving(server, discover=discover) as grafana:
            assert await suggested(grafana, "") == []
