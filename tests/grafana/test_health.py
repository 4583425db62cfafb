"""CheckHealth: Save & test."""

from contextlib import asynccontextmanager

import msgspec
import pytest

from aiostream_ds import ConfigError, DataSource, Health, Secret, Settings, UpstreamError, secret
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import unary

pytestmark = pytest.mark.virtual

Light = pb.CheckHealthResponseHealthStatus


class Broker(Settings):
    url: str
    password: Secret = secret()


def answering(answer):
    class Answering(DataSource[Broker]):
        async def health(self) -> Health:
            if isinstance(answer, Exception):
                raise answer
            return answer(self) if callable(answer) else answer

    return Answering


async def check(kind, settings=None, secrets=None, context=None):
    settings = {"url": "x"} if settings is None else settings
    async with serve_in_memory(kind, settings=settings, secrets=secrets) as grafana:
        request = pb.CheckHealthRequest(plugin_context=context or grafana.context(None))
        return await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)


async def test_a_class_without_the_method_is_ok():
    class Empty(DataSource):
        pass

    reply = await check(Empty)
    assert (reply.status, reply.message, reply.json_details) == (Light.OK, "OK", b"")


async def test_the_reply_has_the_message_and_the_details():
    reply = await check(answering(Health(message="3 topics", details={"topics": ["a"]})))
    assert (reply.status, reply.message) == (Light.OK, "3 topics")
    assert msgspec.json.decode(reply.json_details) == {"topics": ["a"]}


async def test_not_ok_is_an_error():
    reply = await check(answering(Health(ok=False, message="no topics")))
    assert (reply.status, reply.message) == (Light.ERROR, "no topics")


@pytest.mark.parametrize(
    "error, text",
    [
        (UpstreamError("no route to host"), "no route to host"),
        (ConfigError("the url has no scheme"), "the url has no scheme"),
        (KeyError("oops"), "the plugin failed: KeyError: 'oops'"),
    ],
)
async def test_an_exception_is_an_error_with_its_message(error, text):
    reply = await check(answering(error))
    assert (reply.status, reply.message) == (Light.ERROR, text)


@pytest.mark.parametrize(
    "answer, text",
    [
        (None, "health must return a Health, as Health(message=…), got None"),
        (True, "health must return a Health, as Health(message=…), got True"),
        ("OK", "health must return a Health, as Health(message=…), got 'OK'"),
        (Health("fine"), "Health.ok must be a bool, got 'fine'; use Health(message=…)"),
        (Health(message=5), "Health.message must be a str, got 5"),
        (Health(details=[1]), "Health.details must be a dict, got [1]"),
    ],
)
async def test_a_result_that_is_not_a_health_is_an_authors_bug(answer, text):
    reply = await check(answering(answer))
    assert reply.status == Light.ERROR and text in reply.message


async def test_a_missing_setting_is_an_error_that_names_it():
    reply = await check(answering(Health()), settings={})
    assert reply.status == Light.ERROR and "url" in reply.message


async def test_a_failing_lifespan_is_an_error():
    class Closed(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            raise UpstreamError("the broker is down")
            yield

    reply = await check(Closed)
    assert (reply.status, reply.message) == (Light.ERROR, "the broker is down")


async def test_the_message_does_not_contain_secrets():
    kind = answering(lambda self: Health(message=f"as {self.settings.password.reveal()}"))
    reply = await check(kind, secrets={"password": "hunter22"})
    assert reply.message == "as ***"


async def test_a_call_without_a_data_source_is_an_error():
    reply = await check(answering(Health()), context=pb.PluginContext(plugin_id="p"))
    assert reply.status == Light.ERROR and "expected a call for a data source" in reply.message
