"""Quotas: the subscription that exceeds one is refused; running streams continue."""

import anyio
import pytest

from aiostream_ds import DataSource, HistoryRange, Quota, User, stream
from aiostream_ds._grafana.quota import START_GRACE
from aiostream_ds.testing import Refused, serve_in_memory

pytestmark = pytest.mark.virtual

ANN, BEN = User(login="ann", role="Viewer"), User(login="ben", role="Viewer")
NOW = 1_700_000_000_000


class Sensors(DataSource):
    @stream("s/{id}")
    async def s(self, id: str):
        n = 0
        while True:
            yield {"n": n}
            n += 1
            await anyio.sleep(1)

    @s.history
    async def past(self, history_range: HistoryRange, id: str) -> list[dict]:
        return [{"time": NOW, "n": 0}]

    @stream("big")
    async def big(self):
        while True:
            yield {"text": "x" * 10_000}
            await anyio.sleep(0.1)


def limited(**numbers):
    class Limited(Sensors):
        quota = Quota(**numbers)

    return Limited


async def refused(grafana, path, user):
    try:
        await grafana.follow(path, user)
    except Refused as error:
        assert error.status == "PERMISSION_DENIED"
        return True
    return False


async def test_a_channel_beyond_the_quota_is_refused_and_running_ones_continue():
    async with serve_in_memory(limited(channels=3)) as grafana:
        viewers = [await grafana.follow(f"s/{n}", ANN) for n in range(3)]
        assert await refused(grafana, "s/3", ANN) and await refused(grafana, "x/s/3", BEN)
        again = await grafana.follow("s/0", BEN)  # a running channel
        exact = await grafana.follow("x/s/1", BEN)
        await anyio.sleep(6)
        assert all(len(viewer.rows) >= 5 for viewer in (*viewers, again))
        assert len(exact.packets) >= 5
        viewers[2].leave()
        await anyio.sleep(30)
        assert not await refused(grafana, "s/3", ANN), "one has ended"
        await anyio.sleep(1)
        metrics = await grafana.metrics()
        assert metrics["aiostream_ds_refusals_total"] == 2
        assert metrics["aiostream_ds_streams_running"] == 3


async def test_a_panel_beyond_the_quota_has_its_history_and_a_notice():
    async with serve_in_memory(limited(channels=1)) as grafana:
        await grafana.follow("s/0", ANN)
        for exact in (False, True):
            (frame,) = await grafana.query({"queryType": "s", "id": "1", "exact": exact}, user=ANN)
            notice = frame.meta.notices[-1]
            assert notice.severity == "warning"
            assert "at most 1 channels of this data source at a time" in notice.text
            assert not frame.meta.channel and not frame.meta.custom
        (frame,) = await grafana.query({"queryType": "s", "id": "0"}, user=ANN)
        assert frame.meta.channel == "ds/test/s/0" and not frame.meta.notices


async def test_the_channels_of_each_user_are_counted():
    async with serve_in_memory(limited(user_channels=2)) as grafana:
        mine = [await grafana.follow(f"s/{n}", ANN) for n in range(2)]
        assert await refused(grafana, "s/2", ANN) and not await refused(grafana, "s/2", BEN)
        assert not await refused(grafana, "s/1", ANN), (
            "a second subscription of the same user is free"
        )
        assert await refused(grafana, "s/2", ANN), "although it runs for another user"
        mine[0].leave()
        await anyio.sleep(30)
        assert not await refused(grafana, "s/2", ANN)


async def test_subscriptions_are_pairs_of_a_user_and_a_channel():
    async with serve_in_memory(limited(subscriptions=3)) as grafana:
        for path, user in (("s/0", ANN), ("s/0", BEN), ("s/1", ANN), ("s/1", ANN)):
            assert not await refused(grafana, path, user)
        assert await refused(grafana, "s/1", BEN) and await refused(grafana, "s/0", None)


@pytest.mark.slow
async def test_above_the_byte_rate_a_new_channel_is_refused():
    async with serve_in_memory(limited(bytes_per_second=50_000)) as grafana:
        big = await grafana.follow("big", ANN)
        await anyio.sleep(10)
        assert await refused(grafana, "s/0", ANN)
        (frame,) = await grafana.query({"queryType": "s", "id": "0"}, user=ANN)
        assert "bytes per second, new channels start below 50,000" in frame.meta.notices[0].text
        assert not await refused(grafana, "big", BEN)
        before = len(big.rows)
        await anyio.sleep(5)
        assert len(big.rows) > before + 40, "a running stream continues"
        for viewer in tuple(grafana._viewers["big"]):
            viewer.leave()
        await anyio.sleep(60)
        assert not await refused(grafana, "s/0", ANN)


async def test_a_subscription_expires_if_its_channel_does_not_run():
    async with serve_in_memory(limited(channels=1)) as grafana:
        from tests.grafana.calls import subscribe

        assert (await subscribe(grafana, "s/0")).status == 0
        assert await refused(grafana, "s/1", ANN)
        await anyio.sleep(START_GRACE)
        assert not await refused(grafana, "s/1", ANN)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "5"])
def test_a_quota_is_a_positive_integer(wrong):
    with pytest.raises(ValueError, match="Quota.channels must be an integer of at least 1, got"):
        Quota(channels=wrong)
