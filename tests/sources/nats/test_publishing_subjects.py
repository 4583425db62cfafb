"""Publishing from a panel: where the settings allow it, with the server's reason."""

import json
from collections.abc import Iterator

import pytest

from aiostream_ds import User
from aiostream_ds.testing import Refused

from .connecting import NatsToRead, first_row, number_of, numbers, publishing, serving, until
from .connecting import subjects_of as path_of

pytestmark = pytest.mark.slow  # real servers


@pytest.fixture(scope="module")
def lamps() -> Iterator[NatsToRead]:
    """A server whose user may also publish to some subjects."""
    with NatsToRead() as server:
        rights = NatsToRead.RIGHTS
        server.rights = {**rights, "publish": [*rights["publish"], "home.lamp.>"]}
        server.reload()
        yield server


async def test_a_panel_publishes_to_an_allowed_subject(lamps: NatsToRead):
    path = path_of("home.lamp.1")
    async with serving(lamps, publish=["home.lamp.*"]) as grafana, publishing(lamps) as publisher:
        viewer = await grafana.follow(path)
        await first_row(viewer, lambda n: publisher.publish("home.lamp.1", {"n": n}))
        assert await grafana.publish(path, {"payload": {"n": 500}}) == b""
        await until(lambda: viewer.rows[-1].get(number_of("home.lamp.1")) == 500)
        await grafana.publish(path, {"payload": '{"n": 501}'})
        await until(lambda: numbers(viewer)[-1] == 501)


@pytest.mark.parametrize(
    ("publish", "subject", "data"),
    [
        ([], "home.lamp.1", {"payload": 1}),
        (["home.lamp.1"], "home.door", {"payload": 1}),
        ([">"], "$JS.API.STREAM.DELETE.ORDERS", {"payload": ""}),
        (["home.>"], "home.*", {"payload": 1}),
        (["home.>"], "home.lamp.1", {"text": 1}),
        (["home.>"], "home.lamp.1", 1),
        (["home.>"], "home.lamp.1", {"payload": "x" * 1_100_000}),
    ],
)
async def test_what_is_not_allowed_is_refused(lamps: NatsToRead, publish, subject, data):
    async with serving(lamps, publish=publish) as grafana:
        with pytest.raises(Refused):
            await grafana.publish(path_of(subject), data, User(login="viewer", role="Viewer"))


async def test_the_server_refuses_with_its_reason_and_followers_go_on(lamps: NatsToRead, caplog):
    path, reason = path_of("home.door"), 'Permissions Violation for Publish to "home.door"'
    async with serving(lamps, publish=["home.>"]) as grafana, publishing(lamps) as publisher:
        viewer = await grafana.follow(path)
        await first_row(viewer, lambda n: publisher.publish("home.door", {"n": n}))
        with pytest.raises(Refused):
            await grafana.publish(path, {"payload": 1})
        assert reason in caplog.text
        answer = await post(grafana, "home.door", {"payload": 1})
        assert answer.status == 403 and reason in json.loads(answer.body)["message"]
        await publisher.publish("home.door", {"n": 77})
        await until(lambda: numbers(viewer)[-1] == 77)
        assert (await grafana.metrics())["aiostream_ds_stream_retries_total"] == 0


async def test_http_publishes_as_a_channel_does(lamps: NatsToRead):
    async with serving(lamps, publish=["home.>"]) as grafana:
        answer = await post(grafana, "home.lamp.2", {"payload": [1, 2]})
        assert json.loads(answer.body) == {"subject": "home.lamp.2", "bytes": 5}
        answer = await post(grafana, "door", {"payload": 1})
        assert answer.status == 403 and b"allows home.>, got 'door'" in answer.body


async def post(grafana, subject: str, data: object):
    path = "publish/" + path_of(subject).removeprefix("subjects/")
    return await grafana.resource(path, method="POST", body=json.dumps(data).encode())
