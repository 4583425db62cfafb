"""Channels, patterns and keyspace events: sharing, decoding, gaps."""

import asyncio
import json

import msgspec
import pytest
from redis.asyncio import Redis as Client

from aiostream_ds.sources.redis import pubsub
from aiostream_ds.testing import Viewer
from tests.servers import Proxy, Redis

from .connecting import encoded, first_row, serving, statuses, until

pytestmark = pytest.mark.slow  # real servers

NEWS = f"channel/{encoded('news:eu')}"


async def publish(client: Client, number: int, channel: str = "news:eu") -> None:
    await client.publish(channel, json.dumps({"n": number}))


async def subscriptions(client: Client) -> list[str]:
    """The channels and patterns that are subscribed, each as often as there are connections."""
    counts = await client.pubsub_numsub("news:eu", "news:us")
    return [name.decode() for name, count in counts for _ in range(count)]


async def test_channels_share_one_connection(server: Redis, client: Client):
    async with serving(server) as grafana:
        one, two = await grafana.follow(NEWS), await grafana.follow(NEWS)
        other = await grafana.follow(f"channel/{encoded('news:us')}")
        await first_row(one, lambda n: publish(client, n))
        await first_row(other, lambda n: publish(client, n, "news:us"))
        assert (await two.next())["n"] == one.rows[0]["n"]
        clients = await client.client_list()
        subscribed = [each for each in clients if int(each["sub"])]
        assert [int(each["sub"]) for each in subscribed] == [2]
        await asyncio.sleep(0)


async def test_messages_of_all_formats_become_rows(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewer = await grafana.follow(NEWS)
        await first_row(viewer, lambda n: publish(client, n))
        await publish(client, -1)
        for payload in (b"21.5", b'[{"n": 1}, {"n": 2}]', b"hello", b"[{},"):
            await client.publish("news:eu", payload)

        def after_marker() -> int:
            found = [row.get("n") for row in viewer.rows]
            return len(found) - found.index(-1) - 1 if -1 in found else 0

        await until(lambda: after_marker() == 4)
        ok, text = await grafana.health()
        assert ok and "left out; the first of news:eu: invalid JSON" in text


async def test_the_channels_of_a_pattern_are_series(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"pattern/{encoded('news:*')}")
        await first_row(viewer, lambda n: publish(client, n))
        await publish(client, 5, "news:us")
        await until(lambda: viewer.rows[-1].get("n us") or len(viewer.fields) == 3)
        labels = [field.labels for field in viewer.fields[1:]]
        assert labels == [{"channel": "news:eu"}, {"channel": "news:us"}]


async def test_keyspace_events_are_rows(server: Redis, client: Client):
    await client.config_set("notify-keyspace-events", "KA")
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"keys/{encoded('user:*')}")

        async def write(number: int) -> None:
            await client.set("user:1", number)
            await client.set("other", number)

        row = await first_row(viewer, write)
        assert (row["key"], row["event"]) == ("user:1", "set")
        await client.delete("user:1")
        await until(lambda: viewer.rows[-1]["event"] == "del")


async def test_keyspace_events_that_are_off_are_explained(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewer = await grafana.follow(f"x/keys/{encoded('*')}")
        await until(lambda: statuses(viewer))
        assert "notify-keyspace-events is ''" in statuses(viewer)[-1]["text"]
        stock = await grafana.follow(f"keys/{encoded('*')}")
        await client.set("user:1", 0)
        await client.config_set("notify-keyspace-events", "KA")
        await first_row(stock, lambda n: client.set("user:1", n))
        await until(lambda: statuses(viewer)[-1] is None)
        await client.config_set("notify-keyspace-events", "")
        assert "notify-keyspace-events is ''" in (await grafana.health())[1]


async def test_channels_and_patterns_are_suggested(server: Redis, client: Client):
    async with serving(server) as grafana:
        viewer = await grafana.follow(NEWS)
        await first_row(viewer, lambda n: publish(client, n))

        async def suggested(field: str, typed: str) -> list[str]:
            url = f"forms/suggest?stream={field}&field={field}&typed={typed}"
            return msgspec.json.decode((await grafana.resource(url)).body)

        assert await suggested("channel", "ews") == ["news:eu"]
        assert await suggested("channel", "us") == []
        assert await suggested("pattern", "ne") == ["news:*"]


@pytest.mark.slow
async def test_a_lost_connection_is_a_gap_that_panels_show(server: Redis, client: Client):
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer = await grafana.follow(f"x/{NEWS}")
            stock = await grafana.follow(NEWS)
            await first_row(stock, lambda n: publish(client, n))
            proxy.cut()
            await publish(client, -1)
            number = len(stock.rows)
            while len(stock.rows) == number:
                await publish(client, 1_000)
                await asyncio.sleep(0.05)
            await until(
                lambda: any("may be missing" in (s or {}).get("text", "") for s in statuses(viewer))
            )
            assert -1 not in [row["n"] for row in stock.rows]
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
            assert "1 gap in which" in (await grafana.health())[1]


async def test_a_channel_that_the_user_may_not_read_is_refused_alone(server: Redis, client: Client):
    await client.acl_setuser(
        "narrow",
        enabled=True,
        passwords=["+pw"],
        channels=["news:eu"],
        keys=[],
        commands=["+subscribe", "+unsubscribe", "+ping"],
    )
    async with serving(server, "pw", user="narrow") as grafana:
        other = await grafana.follow(f"x/channel/{encoded('secret')}")
        viewer = await grafana.follow(NEWS)
        await first_row(viewer, lambda n: publish(client, n))
        await until(lambda: statuses(other))
        assert "'narrow' lacks a right" in statuses(other)[-1]["text"]


@pytest.mark.slow
async def test_a_connection_that_goes_silent_is_noticed(monkeypatch, server: Redis, client: Client):
    monkeypatch.setattr(pubsub, "PING", 0.1)
    monkeypatch.setattr(pubsub, "ANSWER_TIMEOUT", 0.3)
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana:
            viewer, stock = await grafana.follow(f"x/{NEWS}"), await grafana.follow(NEWS)
            await first_row(stock, lambda n: publish(client, n))
            proxy.hold()
            await until(
                lambda: any("not even an answer to PING" in s["text"] for s in shown(viewer))
            )
            proxy.cut()
            proxy.restore()
            count = len(stock.rows)

            async def is_received() -> bool:
                await publish(client, 7)
                return len(stock.rows) > count

            await until(is_received)
            await until(lambda: any("may be missing" in s["text"] for s in shown(viewer)))


def shown(viewer: Viewer) -> list[dict[str, str]]:
    return [status for status in statuses(viewer) if status]
