"""Publishing from a panel: where the settings allow it, with the broker's reason."""

import json

import pytest

from aiostream_ds import User
from aiostream_ds.sources.mqtt import Mqtt
from aiostream_ds.testing import Refused
from tests.servers import Mosquitto

from .connecting import VERSIONS, serving, topics, until

pytestmark = pytest.mark.slow  # real servers


class Restricted(Mosquitto):
    """A broker that lets its user write some topics only."""

    def _lines(self) -> list[str]:
        rules = self.folder / "rules"
        rules.write_text(f"user {self.login}\ntopic read #\ntopic write home/#\n", encoding="utf-8")
        rules.chmod(0o700)
        return [*super()._lines(), f"acl_file {rules}"]


@pytest.fixture(scope="module")
def broker():
    with Restricted() as server:
        yield server


@pytest.mark.parametrize("protocol", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_panel_publishes_to_an_allowed_topic(broker, protocol, qos):
    topic = f"home/lamp/{qos}/{protocol}"
    async with serving(broker, publish=["home/lamp/#"], protocol=protocol) as grafana:
        viewer = await grafana.follow(topics(topic))
        source = await grafana.data_source(Mqtt)
        await until(lambda: source._broker.statistics().keys)
        for payload, expected in (({"on": True}, ("on", True)), ("7", ("value", 7))):
            data = {"payload": payload, "qos": qos}
            assert await grafana.publish(topics(topic), data) == b""
            row = await viewer.next()
            assert row[f'{expected[0]} {{topic="{topic}"}}'] == expected[1]
        await grafana.publish(topics(topic), {"payload": 1, "retain": True, "qos": qos})
    async with serving(broker) as grafana:
        viewer = await grafana.follow(topics(topic))
        assert (await viewer.next())[f'value {{topic="{topic}"}}'] == 1


async def test_without_a_viewer_a_connection_is_opened_for_the_message(broker):
    async with serving(broker, publish=["home/#"]) as grafana:
        await grafana.publish(topics("home/alone"), {"payload": 5, "retain": True})
        viewer = await grafana.follow(topics("home/alone"))
        assert (await viewer.next())['value {topic="home/alone"}'] == 5


@pytest.mark.parametrize(
    ("publish", "topic", "data"),
    [
        ([], "home/lamp", {"payload": 1}),
        (["home/lamp"], "home/door", {"payload": 1}),
        (["#"], "$SYS/x", {"payload": 1}),
        (["home/#"], "home/+", {"payload": 1}),
        (["home/#"], "home/lamp", {"payload": 1, "qos": 3}),
        (["home/#"], "home/lamp", {"text": 1}),
        (["home/#"], "home/lamp", 1),
    ],
)
async def test_what_is_not_allowed_is_refused(broker, publish, topic, data):
    async with serving(broker, publish=publish) as grafana:
        with pytest.raises(Refused):
            await grafana.publish(topics(topic), data, User(login="viewer", role="Viewer"))


async def test_the_broker_refuses_with_its_reason(broker, caplog):
    reason = "refuses the message to 'other/lamp': not authorized"
    async with serving(broker, publish=["other/#"]) as grafana:
        for qos in (1, 2):
            data = {"payload": 1, "qos": qos}
            with pytest.raises(Refused):
                await grafana.publish(topics("other/lamp"), data)
            assert reason in caplog.text
            caplog.clear()
            answer = await post(grafana, "other/lamp", data)
            assert answer.status == 403 and reason in answer.body.decode()


async def test_http_publishes_as_a_channel_does(broker):
    async with serving(broker, publish=["home/#"]) as grafana:
        answer = await post(grafana, "home/http", {"payload": [1, 2], "retain": True})
        assert json.loads(answer.body) == {"topic": "home/http", "bytes": 5}
        answer = await post(grafana, "door", {"payload": 1})
        assert answer.status == 403 and b"allows home/#, got 'door'" in answer.body


async def post(grafana, topic: str, data: object):
    path = "publish/" + topics(topic).removeprefix("topics/")
    return await grafana.resource(path, method="POST", body=json.dumps(data).encode())
