"""What a source can do is derived from its class, and declared where that is not possible."""

from typing import Any, ClassVar

import pytest

from aiostream_ds import Cursor, DataSource, HistoryPage, HistoryRange, stream
from aiostream_ds.sources.capabilities import Capabilities, stream_capabilities


class Topics(DataSource):
    capabilities: ClassVar[Any] = {"topic": {"event_time": True, "resume": "with QoS 1"}}

    @stream("topic/{name}")
    async def topic(self, name: str):
        yield {}

    @topic.publish
    async def send(self, data: Any, name: str) -> None:
        pass

    @stream("log", cursor="id")
    async def log(self, after: Cursor):
        yield {"id": 1}

    @log.history
    async def log_history(self, span: HistoryRange) -> HistoryPage:
        return HistoryPage([])


def test_capabilities_are_derived_from_hooks_and_the_cursor_or_declared():
    assert stream_capabilities(Topics) == {
        "topic": Capabilities(resume="with QoS 1", event_time=True, publish=True),
        "log": Capabilities(history=True, resume=True),
    }


def test_the_text_names_what_is_possible_and_what_is_not():
    topic, log = stream_capabilities(Topics).values()
    assert topic.text() == (
        "can: resume after outages (with QoS 1), event times, publish; cannot: history"
    )
    assert log.text() == "can: history, resume after outages; cannot: event times, publish"
    everything = Capabilities(history=True, resume=True, event_time=True, publish=True)
    assert "cannot" not in everything.text()


@pytest.mark.parametrize(
    "declared", [{"other": {"history": True}}, {"topic": {"speed": True}}], ids=str
)
def test_a_declared_stream_or_ability_must_exist(declared):
    class Wrong(Topics):
        capabilities: ClassVar[Any] = declared

    with pytest.raises(TypeError, match="other|speed"):
        stream_capabilities(Wrong)
