"""Each case in which stock panels lose or duplicate rows: exact panels, in virtual time."""

import anyio
import pytest

from .stage import open_stage

pytestmark = [pytest.mark.virtual, pytest.mark.slow]


async def settled(stage):
    """Write more rows, wait until all are drawn, and check every drawing."""
    await stage.write(3)
    await stage.settle()
    stage.check()
    assert all(panel.drawings for panel in stage.panels)
    return stage.log_judge.tally


async def test_a_first_panel():
    async with open_stage() as stage:
        stage.append(100)
        panel = stage.open()
        assert (await settled(stage)).drawings > 10
        assert panel.reloads == 0 and len(panel.rows) == 130


async def test_an_empty_log_that_gets_rows():
    async with open_stage() as stage:
        panel = stage.open()
        await anyio.sleep(5)
        await settled(stage)
        assert len(panel.rows) == 30


async def test_a_second_and_a_wider_panel_of_one_channel():
    async with open_stage() as stage:
        await stage.write(60, hertz=2)
        stage.open(width=20)
        await stage.write(0.05, hertz=20)
        wide = stage.open(width=50)
        await stage.write(5)
        stage.open(width=20)
        await settled(stage)
        assert len(wide.rows) > 70


async def test_panels_that_open_at_the_same_instant():
    async with open_stage() as stage:
        await stage.write(60, hertz=2)
        for width in (20, 50, 5):
            stage.open(width=width)
        await settled(stage)


async def test_rows_lost_between_subscribing_and_joining():
    async with open_stage() as stage:
        stage.network.change(join_loss=1.0)
        stage.append(10)
        stage.open()
        await stage.write(5)
        assert (await settled(stage)).exact


@pytest.mark.parametrize("seconds", [1, 30])
@pytest.mark.parametrize("kind", ["log", "pairs", "texts"])
async def test_the_network_goes_down(seconds, kind):
    async with open_stage() as stage:
        stage.append(10)
        panel = stage.open(width=300, kind=kind)
        await stage.write(2)
        stage.network.change(up=False, reachable=False)
        await stage.write(seconds)
        stage.network.change(up=True, reachable=True)
        await settled(stage)
        assert panel.fetches >= 1


async def test_more_rows_are_missed_than_one_answer_holds():
    async with open_stage() as stage:
        panel = stage.open(width=300, points=100_000)
        await stage.write(2)
        stage.network.change(up=False, reachable=False)
        stage.append(12_000)
        await stage.write(5)
        stage.network.change(up=True, reachable=True)
        await settled(stage)
        assert panel.fetches >= 3 and len(panel.rows) == 12_100


async def test_rows_are_polled_while_only_the_socket_is_refused():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        await stage.write(2)
        stage.network.change(up=False)
        await stage.write(30)
        assert len(panel.rows) > 290
        stage.network.change(up=True)
        await settled(stage)


async def test_packets_are_lost():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        await stage.write(2)
        stage.network.change(lossy=True)
        await stage.write(5)
        stage.network.change(lossy=False)
        await settled(stage)
        assert panel.fetches >= 1


async def test_packets_that_never_arrive_before_the_rows_end():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        await stage.write(2)
        stage.network.change(lossy=True)
        await stage.write(1)
        await anyio.sleep(0.5)
        stage.network.change(lossy=False)
        await stage.settle()
        stage.check()
        assert len(panel.rows) == 30


async def test_the_plugin_is_killed():
    async with open_stage() as stage:
        stage.append(10)
        panel = stage.open(width=300)
        for _ in range(3):
            await stage.write(2)
            await stage.servers[0].kill()
        await settled(stage)
        assert panel.reloads == 0


async def test_the_plugin_is_killed_and_then_no_rows_are_written():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        await stage.write(2)
        stage.append(7)
        await stage.servers[0].kill()
        await stage.settle()
        stage.check()
        assert len(panel.rows) == 27


async def test_the_settings_change():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        for title in "one", "two":
            await stage.write(2)
            await stage.change_settings(title)
        await settled(stage)
        assert panel.reloads <= 2 and not panel.gap and len(panel.rows) == 70


async def test_the_log_is_replaced():
    async with open_stage() as stage:
        stage.append(30)
        panel = stage.open(width=300)
        await stage.write(2)
        stage.world.replace("a")
        await stage.write(2)
        await settled(stage)
        assert panel.reloads == 1 and len(panel.rows) == 50


async def test_the_log_is_replaced_by_an_empty_one():
    async with open_stage() as stage:
        stage.append(30)
        panel = stage.open(width=300)
        await stage.write(2)
        stage.world.replace("a")
        await anyio.sleep(5)
        assert panel.reloads == 1 and panel.rows == []
        await settled(stage)
        assert panel.reloads == 1 and len(panel.rows) == 30


async def test_columns_that_are_added_while_the_stream_runs():
    async with open_stage() as stage:
        panel = stage.open(width=300, kind="varying")
        await stage.write(30, hertz=2)
        await stage.servers[0].kill()
        await stage.write(30, hertz=2)
        await settled(stage)
        assert len(panel.names) > 5 and len(panel.rows) == 150


@pytest.mark.parametrize("kind", ["log", "pairs", "texts"])
async def test_the_upstream_fails_for_a_while(kind):
    async with open_stage() as stage:
        panel = stage.open(width=300, kind=kind)
        for seconds in 1, 20:
            await stage.write(2)
            stage.world.upstream(down=True)
            await stage.write(seconds)
            stage.world.upstream(down=False)
        await settled(stage)
        assert panel.reloads == 0


async def test_a_subscriber_that_is_too_slow():
    async with open_stage() as stage:
        panel = stage.open(width=300)
        await stage.write(2)
        stage.servers[0].paused = True
        for _ in range(20):
            stage.append(20, pad=2_000)
            await anyio.sleep(0.2)
        stage.servers[0].paused = False
        await settled(stage)
        assert stage.gaps > 0 and panel.fetches > 0


@pytest.mark.parametrize(("socket", "http"), [(0, 1), (1, 0), (1, 1)])
async def test_two_servers_of_which_one_lags(socket, http):
    async with open_stage(servers=2) as stage:
        stage.world.lag(1, 2.0)
        await stage.write(10)
        stage.network.change(http=http)
        panel = stage.open(width=300)
        await stage.write(3)
        stage.network.change(socket=socket)
        await stage.write(3)
        await settled(stage)
        assert panel.reloads == 0


async def test_failing_over_and_back():
    async with open_stage(servers=2) as stage:
        panel = stage.open(width=300)
        for number in (1, 0, 1):
            await stage.write(2)
            stage.network.change(socket=number, http=number)
        await settled(stage)
        assert panel.reloads == 0


async def test_a_feed_that_cannot_be_read_again_is_exact_while_its_process_runs():
    async with open_stage() as stage:
        panels = [stage.open_feed(), stage.open_feed()]
        await stage.feed(3)
        stage.network.change(up=False, reachable=False)
        await stage.feed(1)
        stage.network.change(up=True, reachable=True)
        await stage.feed(3)
        await stage.settle()
        stage.check()
        rows = [[row[3] for row in panel.rows] for panel in panels]
        assert rows[0][-1] >= 60 and rows[0] == rows[1] == list(range(1, rows[0][-1] + 1))
        assert not any(panel.gap or panel.reloads for panel in panels)


async def test_a_feed_whose_process_died_is_reloaded_once_with_a_notice():
    async with open_stage() as stage:
        panel = stage.open_feed()
        await stage.feed(3)
        await stage.servers[0].kill()
        await stage.feed(3)
        await stage.settle()
        stage.check()
        assert panel.reloads == 1 and panel.gap
        assert len(panel.rows) >= 25


async def test_a_log_smaller_than_the_outage_causes_one_reload_and_a_notice():
    async with open_stage() as stage:
        panel = stage.open_feed()
        await stage.feed(3)
        stage.network.change(up=False, reachable=False)
        await stage.feed(9)
        stage.network.change(up=True, reachable=True)
        await stage.feed(10)
        await anyio.sleep(120)
        stage.check()
        assert panel.reloads == 1 and panel.gap
        numbers = [row[3] for row in panel.rows]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) >= 50


async def test_a_method_that_only_follows_new_rows_misses_none():
    async with open_stage(servers=2) as stage:
        stage.append(5)
        panel = stage.open(kind="following")
        await stage.write(3, hertz=50)
        for _ in range(2):
            stage.world.upstream(down=True)
            await stage.write(2, hertz=50)
            stage.world.upstream(down=False)
            await stage.write(3, hertz=50)
        await stage.servers[0].kill()
        await stage.write(3, hertz=50)
        stage.network.change(socket=1)
        await stage.write(3, hertz=50)
        await settled(stage)
        assert panel.reloads == 0 and len(panel.rows) > 900
