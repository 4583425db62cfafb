"""What every data source has to keep to, as tests that an author's class inherits.

class TestSensors(PluginSuite):
    data_source = Sensors
    settings = {"url": "mqtt://localhost"}
    channels = ["sensors/kitchen"]
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import msgspec
import pytest

from aiostream_ds.datasource import DataSource
from aiostream_ds.settings import Secret, decode_settings
from aiostream_ds.testing.grafana import Grafana, serve_in_memory
from aiostream_ds.testing.viewer import Refused

__all__ = ["PluginSuite"]


@pytest.mark.asyncio
class PluginSuite:
    """Subclass it under a name that pytest collects, and say what is to be tested.

    `settings` is the jsonData (camelCase), `secrets` the secureJsonData, `channels` paths that give
    at least one row within `timeout` seconds.
    """

    data_source: ClassVar[type[DataSource[Any]]]
    settings: ClassVar[Mapping[str, Any]] = {}
    secrets: ClassVar[Mapping[str, str]] = {}
    channels: ClassVar[Sequence[str]] = ()
    timeout: ClassVar[float] = 5.0

    def serve(self) -> AbstractAsyncContextManager[Grafana]:
        """A Grafana before the data source."""
        return serve_in_memory(self.data_source, settings=self.settings, secrets=self.secrets)

    async def test_health_is_green(self) -> None:
        """Save & test answers, and likes these settings."""
        async with self.serve() as grafana:
            ok, message = await grafana.health()
        assert ok, message

    async def test_channels_give_rows(self) -> None:
        """Each channel lets an admin in and sends a row that the panel can draw."""
        async with self.serve() as grafana, asyncio.timeout(self.timeout):
            for path in self.channels:
                viewer = await grafana.follow(path)
                row = await viewer.next()
                assert row and viewer.broken is None, f"{path}: {viewer.broken}"

    async def test_channels_stop_cleanly(self) -> None:
        """When the plugin ends, every stream and the lifespan end in time and leave no task."""
        before = asyncio.all_tasks()
        async with self.serve() as grafana, asyncio.timeout(2 * self.timeout):
            for path in self.channels:
                await (await grafana.follow(path)).next()
            assert await grafana.plugin.close(self.timeout), "a stream or the lifespan did not end"
        assert not asyncio.all_tasks() - before

    async def test_channels_answer_queries(self) -> None:
        """Each channel's query gives a frame that Arrow can hold and that names the channel."""
        async with self.serve() as grafana:
            for path in self.channels:
                (frame,) = await grafana.query(self._query(path))
                assert frame.meta is not None
                assert frame.meta.channel == f"ds/{grafana.uid}/{path}"

    async def test_unknown_paths_are_not_found(self) -> None:
        """A path of no stream is refused when it is subscribed to."""
        async with self.serve() as grafana:
            with pytest.raises(Refused) as refused:
                await grafana.follow("x/no-such-path")  # no author's path may begin so
        assert refused.value.status == "NOT_FOUND"

    async def test_settings_survive_a_round_trip(self) -> None:
        """What Grafana stores is read, written and read again as the same settings."""
        kind = self.data_source._plan.settings
        json, secrets = msgspec.json.encode(dict(self.settings)), dict(self.secrets)
        once = decode_settings(kind, json, secrets)
        plain = msgspec.to_builtins(once, enc_hook=_reveal)
        assert decode_settings(kind, msgspec.json.encode(plain), secrets) == once

    def _query(self, path: str) -> dict[str, Any]:
        stream, arguments = self.data_source._plan.match(path)
        fields = msgspec.structs.fields(stream.query_type)
        found = {f.encode_name: arguments[f.name] for f in fields if f.name in arguments}
        return {"queryType": stream.name, **found}


def _reveal(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{value!r} is no JSON value")
