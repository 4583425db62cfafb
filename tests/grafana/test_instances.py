"""Instances: one per configured data source, replaced when its settings change."""

import asyncio
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from grpclib import GRPCError, Status

from aiostream_ds import DataSource, Secret, Settings, UpstreamError, secret, stream
from aiostream_ds._grafana.conversion import plugin_context
from aiostream_ds._grafana.instances import CLOSE_GRACE, IDLE_TIMEOUT
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import ANN, run_stream

pytestmark = pytest.mark.virtual


class Broker(Settings):
    url: str = "one"


class Journal:
    """The events of one test's instances, in order."""

    def __init__(self):
        self.events = []
        self.tasks = {}
        self.fail = None
        self.gate = None
        self.break_ = None

    def __contains__(self, event):
        return event in self.events


@pytest.fixture
def journal():
    return Journal()


def data_source(journal):
    class Source(DataSource[Broker]):
        @asynccontextmanager
        async def lifespan(self):
            journal.events.append(f"open {self.settings.url}")
            journal.tasks[self.settings.url] = asyncio.current_task()
            if journal.gate is not None:
                await journal.gate.wait()
            if journal.fail is not None:
                raise journal.fail
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work)
                yield
                tasks.cancel_scope.cancel()
            assert journal.tasks[self.settings.url] is asyncio.current_task()
            journal.events.append(f"close {self.settings.url}")

        async def _work(self):
            if journal.break_ is not None:
                await journal.break_.wait()
                raise OSError("connection lost")
            await anyio.sleep_forever()

        @stream("ticks")
        async def ticks(self):
            try:
                while True:
                    yield {"url": self.settings.url}
                    await anyio.sleep(1)
            finally:
                journal.events.append(f"end {self.settings.url}")

    return Source


def context(grafana, url, updated_ms, config=None):
    """The plugin context of a call with these settings."""
    grafana._settings, grafana._updated_ms = {"url": url}, updated_ms
    found = grafana.context(ANN)
    found.grafana_config = config or {}
    return found


async def url(call):
    packet = (await call.recv_message()).data
    return packet.partition(b'"values"')[2].split(b'"')[1].decode()


async def status(call):
    with suppress(GRPCError):
        while await call.recv_message() is not None:
            pass
    try:
        await call.recv_trailing_metadata()
    except GRPCError as error:
        return error.status


async def test_a_lifespan_is_entered_once_and_left_once(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        for _ in range(3):
            assert (await grafana.health())[0]
        assert journal.events == ["open one"]
    assert journal.events == ["open one", "close one"]


async def test_concurrent_first_calls_open_one_instance(journal):
    journal.gate = asyncio.Event()
    async with serve_in_memory(data_source(journal)) as grafana:
        calls = [asyncio.create_task(grafana.health()) for _ in range(20)]
        await anyio.sleep(1)
        assert journal.events == ["open one"] and not any(call.done() for call in calls)
        journal.gate.set()
        assert all(ok for ok, _ in await asyncio.gather(*calls))
    assert journal.events == ["open one", "close one"]


async def test_a_call_that_is_cancelled_during_opening_does_not_affect_others(journal):
    journal.gate = asyncio.Event()
    async with serve_in_memory(data_source(journal)) as grafana:
        first, second = (asyncio.create_task(grafana.health()) for _ in range(2))
        await anyio.sleep(1)
        first.cancel()
        await anyio.sleep(1)
        journal.gate.set()
        assert (await second)[0]
    assert journal.events == ["open one", "close one"]


async def test_newer_settings_replace_an_instance_and_it_closes_after_the_grace(journal):
    async with serve_in_memory(data_source(journal), settings={"url": "one"}) as grafana:
        async with run_stream(grafana, "ticks", context=context(grafana, "one", 1)) as old:
            assert await url(old) == "one"
            async with run_stream(grafana, "ticks", context=context(grafana, "two", 2)) as new:
                assert await url(new) == "two"
                assert await status(old) == Status.UNAVAILABLE
                assert journal.events == ["open one", "open two", "end one"]
                await anyio.sleep(CLOSE_GRACE - 0.5)
                assert "close one" not in journal
                await anyio.sleep(1)
                assert "close one" in journal
                assert await url(new) == "two"


async def test_viewers_continue_with_the_new_settings(journal):
    async with serve_in_memory(data_source(journal), settings={"url": "one"}) as grafana:
        viewer = await grafana.follow("ticks")
        assert (await viewer.next())["url"] == "one"
        await grafana.change_settings({"url": "two"})
        while (await viewer.next())["url"] != "two":
            pass
        assert viewer.broken is None


async def test_older_settings_never_replace_newer_ones(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        async with run_stream(grafana, "ticks", context=context(grafana, "new", 5)) as new:
            assert await url(new) == "new"
            async with run_stream(grafana, "ticks", context=context(grafana, "old", 4)) as old:
                assert await url(old) == "new"
        assert "open old" not in journal


async def test_the_context_of_the_last_call_does_not_keep_its_instance(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        instances, old = grafana.plugin.instances, context(grafana, "old", 4)
        first = await instances.get(old)
        assert instances.find_open(old) is instances.find_open(old) is first
        second = await instances.get(context(grafana, "new", 5))
        assert instances.find_open(old) is instances.find_open(old) is second
        instances.close_idle(anyio.current_time() + 2 * IDLE_TIMEOUT)
        assert instances.find_open(old) is None
        assert await instances.get(old) is not second


async def test_stopping_does_not_search_all_contexts_for_each_data_source(journal):
    searched = []
    async with serve_in_memory(data_source(journal)) as grafana:
        await grafana.health()
        grafana.plugin.instances.forget_contexts = searched.append
    assert journal.events == ["open one", "close one"] and not searched


async def test_of_two_quick_saves_the_later_wins_in_any_order_of_opening(journal):
    journal.gate = asyncio.Event()
    async with serve_in_memory(data_source(journal)) as grafana:
        first = asyncio.create_task(grafana.plugin.instances.get(context(grafana, "a", 1)))
        await anyio.sleep(0.1)
        second = asyncio.create_task(grafana.plugin.instances.get(context(grafana, "b", 2)))
        await anyio.sleep(0.1)
        journal.gate.set()
        await asyncio.gather(first, second)
        async with run_stream(grafana, "ticks", context=context(grafana, "b", 2)) as call:
            assert await url(call) == "b"
            await anyio.sleep(CLOSE_GRACE + 1)
            assert "close a" in journal and "close b" not in journal


@pytest.mark.parametrize(
    "error, text",
    [(UpstreamError("the broker is down"), "the broker is down"), (KeyError("k"), "KeyError")],
)
async def test_a_failing_lifespan_fails_each_call_and_the_next_one_retries(journal, error, text):
    journal.fail = error
    async with serve_in_memory(data_source(journal)) as grafana:
        for count in (1, 2):
            ok, message = await grafana.health()
            assert not ok and text in message
            assert len(journal.events) == count
        journal.fail = None
        assert (await grafana.health())[0]


async def test_an_error_class_with_its_own_arguments_reaches_every_caller(journal):
    class Unreachable(UpstreamError):
        def __init__(self, host, port):
            super().__init__(f"{host}:{port} cannot be reached")

    journal.fail = Unreachable("h", 1)
    async with serve_in_memory(data_source(journal)) as grafana:
        assert await grafana.health() == (False, "h:1 cannot be reached")


async def test_new_settings_that_fail_to_open_also_end_the_old_streams(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        async with run_stream(grafana, "ticks", context=context(grafana, "one", 1)) as old:
            await url(old)
            journal.fail = UpstreamError("refused")
            with pytest.raises(UpstreamError):
                await grafana.plugin.instances.get(context(grafana, "two", 2))
            assert await status(old) == Status.UNAVAILABLE


async def test_after_a_lifespan_fails_the_next_call_opens_it_again(journal):
    journal.break_ = asyncio.Event()
    async with serve_in_memory(data_source(journal)) as grafana:
        async with run_stream(grafana, "ticks") as call:
            await call.recv_message()
            journal.break_.set()
            assert await status(call) == Status.UNAVAILABLE
        journal.break_ = None
        assert (await grafana.health())[0]
    assert journal.events.count("open one") == 2


async def test_an_idle_instance_closes_and_the_next_call_opens_it_again(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        await grafana.health()
        await anyio.sleep(IDLE_TIMEOUT * 1.5)
        assert journal.events == ["open one", "close one"]
        assert (await grafana.health())[0]


async def test_an_instance_with_a_running_stream_is_never_idle(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        instance = await grafana.plugin.instances.get(grafana.context(ANN))
        async with run_stream(grafana, "ticks") as call:
            await call.recv_message()
            grafana.plugin.instances.close_idle(anyio.current_time() + 10 * IDLE_TIMEOUT)
            assert await grafana.plugin.instances.get(grafana.context(ANN)) is instance


async def test_a_changed_grafana_config_does_not_replace_the_instance(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        for level in ("1", "2"):
            call_context = context(grafana, "one", 1, config={"LEVEL": level})
            assert await grafana.plugin.instances.get(call_context)
    assert journal.events == ["open one", "close one"]


async def test_each_uid_and_tenant_has_its_own_instance(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        contexts = [grafana.context(ANN) for _ in range(4)]
        contexts[1].data_source_instance_settings.uid = "other"
        contexts[2].org_id = 2
        contexts[3].namespace = "stacks-3"
        found = {id(await grafana.plugin.instances.get(c)) for c in contexts}
    assert len(found) == 4


async def test_a_stopping_plugin_does_not_open_instances(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        await grafana.plugin.close()
        assert await grafana.health() == (False, "the plugin is stopping")
    assert journal.events == []


@pytest.mark.parametrize(
    "settings, secrets, text, level",
    [
        ({"ur": "x"}, {}, "ur (expected url?)", "WARNING"),
        ({"token": "x"}, {}, "token (it must be in secureJsonData)", "WARNING"),
        ({}, {"url": "x"}, "url (it must be in jsonData)", "WARNING"),
        ({"tlsAuth": True}, {"basicAuthPassword": "x"}, "tlsAuth, basicAuthPassword", "INFO"),
    ],
)
async def test_settings_that_nothing_reads_are_logged_once(settings, secrets, text, level, caplog):
    class Tokened(Broker):
        token: Secret = secret()

    class Reading(DataSource[Tokened]):
        pass

    caplog.set_level("INFO")
    async with serve_in_memory(Reading, settings=settings, secrets=secrets) as grafana:
        await grafana.health()
        await grafana.health()
    (record,) = [r for r in caplog.records if "nothing reads" in r.getMessage()]
    assert record.getMessage() == f"settings that nothing reads: {text}"
    assert record.levelname == level


async def test_settings_that_are_read_are_not_logged(caplog):
    class Reading(DataSource[Broker]):
        pass

    caplog.set_level("INFO")
    async with serve_in_memory(Reading, settings={"url": "x"}) as grafana:
        await grafana.health()
    assert not [r for r in caplog.records if "nothing reads" in r.getMessage()]


async def test_what_an_author_does_to_the_grafana_config_stays_in_the_data_source(journal):
    async with serve_in_memory(data_source(journal)) as grafana:
        instances, config = grafana.plugin.instances, {"LEVEL": "1"}
        first = context(grafana, "one", 1, config=config)
        instance = await instances.get(first)
        instance.source.grafana_config["LEVEL"] = "an author's"
        plugin_context(first).grafana_config.clear()
        assert config == {"LEVEL": "1"}
        second = context(grafana, "one", 1, config={"LEVEL": "2"})
        assert instances.find_open(second) is instance
        instance.source.grafana_config["LEVEL"] = "an author's"
        assert second.grafana_config == {"LEVEL": "2"}
        assert instances.find_open(first) is instance
        assert instance.source.grafana_config == config
        assert instances.find_open(context(grafana, "one", 1)) is instance
        assert instance.source.grafana_config == config
