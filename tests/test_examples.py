"""The examples and the built-in sources pass the suite for data sources."""

import importlib.util
import sys
from datetime import datetime

import anyio
import msgspec
import pytest

from aiostream_ds import DataSource, User
from aiostream_ds.sources.demo import Demo
from aiostream_ds.sources.host import Host
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory
from aiostream_ds.testing.suite import PluginSuite
from tests.examples.loading import EXAMPLES, load

pytestmark = pytest.mark.slow  # runs whole suites

pytest_plugins = ["aiostream_ds.testing.pytest_plugin"]

ANN = User(login="ann", role="Viewer")


clock, sensors, chat = load("clock"), load("sensors"), load("chat")


class TestClock(PluginSuite):
    data_source = clock.Clock
    channels = ["ticks/100"]


class TestSensors(PluginSuite):
    data_source = sensors.Sensors
    settings = {"interval": 0.01}
    secrets = {"password": "swordfish"}
    channels = ["sensors/kitchen", "sensors/cellar"]


class TestChat(PluginSuite):
    data_source = chat.Chat


class TestDemo(PluginSuite):
    data_source = Demo
    channels = ["walk/100/1", "walk/50/7"]


class TestHost(PluginSuite):
    data_source = Host
    settings = {"interval": 0.1}
    channels = ["cpu", "memory"]


def serving():
    return serve_in_memory(
        sensors.Sensors, settings={"interval": 0.01}, secrets={"password": "swordfish"}
    )


def test_the_clock_is_twelve_lines_of_code():
    source = (EXAMPLES / "clock.py").read_text("utf-8")
    code = [line for line in source.splitlines()[1:] if line]  # without the docstring
    assert len(code) <= 12


@pytest.mark.parametrize("style", ["plain", "future", "quoted"])
async def test_the_clock_works_in_three_annotation_styles(style, tmp_path):
    text = (EXAMPLES / "clock.py").read_text("utf-8")
    if style == "future":
        text = text.replace("from math", "from __future__ import annotations\n\nfrom math")
    elif style == "quoted":
        plain = "hz: Literal[1, 10, 100] = 10) -> Rows"
        text = text.replace(plain, 'hz: "Literal[1, 10, 100]" = 10) -> "Rows"')
        assert '"Rows"' in text
    (tmp_path / "c.py").write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(f"clock_{style}", tmp_path / "c.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert issubclass(module.Clock, DataSource)
    async with serve_in_memory(module.Clock) as grafana:
        row = await (await grafana.follow("ticks/100")).next()
        with pytest.raises(Refused):
            await grafana.follow("ticks/1000")
    assert -1 <= row["value"] <= 1


async def test_sensors_history_and_live_rows_have_the_same_columns():
    async with serving() as grafana:
        viewer = await grafana.follow("sensors/kitchen")
        await viewer.take(3)
        (frame,) = await grafana.query({"queryType": "sensor", "id": "kitchen"})
    assert [f.name for f in frame.fields] == [f.name for f in viewer.fields]
    assert frame.rows >= 3
    assert all(isinstance(row["time"], int | datetime) for row in viewer.rows)


async def test_sensors_denies_viewers_the_cellar():
    async with serving() as grafana:
        with pytest.raises(Refused, match="PERMISSION_DENIED"):
            await grafana.follow("sensors/cellar", ANN)
        with pytest.raises(QueryFailed, match="not for viewers"):
            await grafana.query({"queryType": "sensor", "id": "cellar"}, user=ANN)
        with pytest.raises(QueryFailed, match="one of kitchen, cellar, got 'attic'"):
            await grafana.query({"queryType": "sensor", "id": "attic"})


async def test_sensors_accepts_a_published_target():
    async with serving() as grafana:
        await grafana.publish("sensors/kitchen", {"target": 25})
        shown = msgspec.json.decode((await grafana.resource("sensors/kitchen")).body)
        with pytest.raises(Refused):
            await grafana.publish("sensors/kitchen", {"target": 99})
    assert shown["target"] == 25


async def test_sensors_queries():
    async with serving() as grafana:
        await (await grafana.follow("sensors/kitchen")).next()
        (frame,) = await grafana.query({"queryType": "compare", "sensors": ["kitchen"]})
        (live,) = await grafana.query({"queryType": "warmest"})
    assert [f.name for f in frame.fields] == ["kitchen"]
    assert live.meta.channel.startswith("ds/test/sensors/")


async def test_sensors_checks_a_password_without_showing_it():
    async with serving() as grafana:
        answer = await grafana.resource("login", method="POST", body=b'{"password":"swordfish"}')
        assert answer.body == b'{"valid":true}'
    async with serve_in_memory(sensors.Sensors) as grafana:
        assert await grafana.health() == (False, "no password is set")
    async with serve_in_memory(sensors.Sensors, settings={"sensors": []}) as grafana:
        assert (await grafana.health())[1] == "sensors must have at least one name, got none"


async def test_all_viewers_of_a_topic_see_what_one_publishes():
    async with serve_in_memory(chat.Chat) as grafana:
        ann, ben = await grafana.follow("topics/a"), await grafana.follow("topics/a")
        other = await grafana.follow("topics/b")
        await anyio.wait_all_tasks_blocked()
        await grafana.publish("topics/a", {"name": "Ann", "text": "Hello"})
        assert (await ann.next())["text"] == (await ben.next())["text"] == "Hello"
        with pytest.raises(Refused):
            await grafana.publish("topics/a", {"name": "", "text": "Hello"})
    assert other.rows == []


async def test_the_pytest_plugin_has_a_fixture_for_serve_in_memory(serve_in_memory):
    async with serve_in_memory(clock.Clock) as grafana:
        assert (await grafana.health())[0]
