"""The in-memory Grafana follows the rules of the real one."""

import anyio
import pytest

from aiostream_ds import DataSource, Field, FieldType, Frame, Settings, User, stream
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds.testing import Viewer, serve_in_memory
from aiostream_ds.testing.grafana import CHECK_INTERVAL, EMPTY_CHECKS

pytestmark = pytest.mark.virtual


class Named(Settings):
    name: str = "one"


class Source(DataSource[Named]):
    """Records the times at which runs start and end."""

    starts: list[float] = []
    ends: list[float] = []

    @stream("steady")
    async def steady(self):
        self.starts.append(anyio.current_time())
        try:
            while True:
                yield {"name": self.settings.name}
                await anyio.sleep(1)
        finally:
            self.ends.append(anyio.current_time())

    @stream("short")
    async def short(self):
        yield {"n": 1}
        yield {"n": 2}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(Source, "starts", [])
    monkeypatch.setattr(Source, "ends", [])


async def test_a_stream_is_cancelled_after_three_empty_checks():
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("steady")
        await viewer.next()
        await anyio.sleep(100)
        assert Source.ends == []
        left = anyio.current_time()
        viewer.leave()
        await anyio.sleep(60)
        (end,) = Source.ends
    assert CHECK_INTERVAL * (EMPTY_CHECKS - 1) <= end - left <= CHECK_INTERVAL * EMPTY_CHECKS


async def test_a_viewer_that_returns_before_the_last_check_finds_the_same_run():
    async with serve_in_memory(Source) as grafana:
        for _ in range(5):
            viewer = await grafana.follow("steady")
            await viewer.next()
            viewer.leave()
            await anyio.sleep(9)
        assert len(Source.starts) == 1


async def test_viewers_of_one_path_share_one_run_stream():
    async with serve_in_memory(Source) as grafana:
        viewers = [await grafana.follow("steady") for _ in range(3)]
        for viewer in viewers:
            await viewer.next()
        assert grafana.plugin.registry.subscriptions == 1


async def test_a_run_that_fails_at_once_is_called_again_with_growing_delays(monkeypatch):
    times = []

    def join(self, *args, **_):
        times.append(anyio.current_time())
        raise KeyError("oops")

    monkeypatch.setattr(ChannelRegistry, "join", join)
    async with serve_in_memory(Source) as grafana:
        await grafana.follow("steady")
        await anyio.sleep(25)
    gaps = [round(b - a, 3) for a, b in zip(times, times[1:], strict=False)]
    assert gaps == [0, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]


async def test_a_run_that_fails_late_is_called_again_at_once(monkeypatch):
    times = []

    class Late(DataSource):
        @stream("late")
        async def late(self):
            yield {"n": 1}

    async with serve_in_memory(Late) as grafana:
        receive = grafana._receive

        async def failing(run):
            times.append(anyio.current_time())
            await anyio.sleep(1)
            await receive(run)
            raise grafana_error()

        grafana._receive = failing
        await grafana.follow("late")
        await anyio.sleep(4.5)
    assert [round(t - times[0]) for t in times] == [0, 1, 2, 3, 4]


def grafana_error():
    from grpclib import GRPCError, Status

    return GRPCError(Status.UNAVAILABLE)


async def test_after_a_normal_end_viewers_get_nothing_until_the_next_subscription():
    async with serve_in_memory(Source) as grafana:
        first = await grafana.follow("short")
        await first.take(2)
        await anyio.sleep(60)
        assert len(first.rows) == 2
        second = await grafana.follow("short")
        await second.take(2)
        await first.take(2)  # as in Grafana, it gets packets again
        assert len(first.rows) == 4


async def test_changed_settings_restart_the_stream_with_the_same_user():
    async with serve_in_memory(Source) as grafana:
        viewer = await grafana.follow("steady", User(login="ann"))
        await viewer.next()
        await grafana.change_settings({"name": "two"})
        while (await viewer.next())["name"] != "two":
            pass
        assert grafana._runs["steady"].user.login == "ann"
        assert len(Source.starts) == 2


async def test_a_panel_breaks_on_rows_with_another_number_of_columns_than_the_schema():
    viewer = Viewer("p", lambda _: None)
    viewer.push(
        b'{"schema":{"fields":[{"name":"a","type":"number","typeInfo":{"frame":"float64"}}]},'
        b'"data":{"values":[[1]]}}'
    )
    viewer.push(b'{"data":{"values":[[2]]}}')
    assert [row["a"] for row in await viewer.take(2)] == [1, 2]
    viewer.push(b'{"data":{"values":[[3],[4]]}}')
    assert "push message mismatch" in viewer.broken
    with pytest.raises(ValueError, match="push message mismatch"):
        await viewer.next()


async def test_a_panel_uses_a_changed_schema():
    class Growing(DataSource):
        @stream("growing")
        async def growing(self):
            for width in (1, 2):
                names = "ab"[:width]
                yield Frame(*(Field(name, [width], FieldType.INT64) for name in names))
                await anyio.sleep(1)
            await anyio.sleep_forever()

    async with serve_in_memory(Growing) as grafana:
        viewer = await grafana.follow("growing")
        assert await viewer.take(2) == [{"a": 1}, {"a": 2, "b": 2}]
    assert viewer.schema_changes == 2 and viewer.broken is None
