"""Streams with `keep_running` are recorded while nobody looks."""

import json
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import pytest

from aiostream_ds import DataSource, Retention, Rows, Settings, stream
from aiostream_ds._grafana import kept_streams
from aiostream_ds.stores import SqliteStore
from aiostream_ds.testing import serve_in_memory
from tests.waiting import until


class Place(Settings):
    directory: str = ""
    other: int = 0


class Kept(DataSource[Place]):
    runs: ClassVar[dict[str, int]] = {}
    """Runs of each path that have not ended."""
    starts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self.store_directory = self.settings.directory

    @stream("kept/{name}", store=Retention(), keep_running=3600)
    async def kept(self, name: str) -> Rows:
        Kept.runs[name] = Kept.runs.get(name, 0) + 1
        Kept.starts[name] += 1
        try:
            for n in range(1_000_000):
                yield {"n": n}
                await anyio.sleep(0.01)
        finally:
            Kept.runs[name] -= 1

    @stream("short/{name}", store=Retention(), keep_running=0.2)
    async def short(self, name: str) -> Rows:
        async for row in self.kept(name):
            yield row

    @stream("plain/{name}", store=Retention())
    async def plain(self, name: str) -> Rows:
        async for row in self.kept(name):
            yield row


@pytest.fixture(autouse=True)
def no_runs():
    Kept.runs.clear()
    Kept.starts.clear()


async def stored(grafana: Any, path: str) -> int:
    source = await grafana.data_source(Kept)
    last: int = (await source.row_store.newest(path)).value
    return last


async def grows(grafana: Any, path: str) -> None:
    """Wait until rows are stored in the channel that are not there yet."""
    before = await stored(grafana, path)

    async def has_grown() -> bool:
        return await stored(grafana, path) > before

    await until(has_grown)


async def test_a_stream_goes_on_after_its_last_viewer_left(tmp_path):
    async with serve_in_memory(Kept, settings={"directory": str(tmp_path)}) as grafana:
        source = await grafana.data_source(Kept)
        for path in ("kept/a", "plain/b"):
            rows = source.follow(path)
            await anext(rows)
            await rows.aclose()
        await grows(grafana, "kept/a")
        await until(lambda: Kept.runs == {"a": 1, "b": 0})


async def test_a_kept_stream_starts_again_after_a_change_of_the_settings_and_a_restart(tmp_path):
    settings: dict[str, Any] = {"directory": str(tmp_path)}
    async with serve_in_memory(Kept, settings=settings) as grafana:
        await (await grafana.follow("kept/a")).next()
        await (await grafana.follow("plain/b")).next()
    assert Kept.runs == {"a": 0, "b": 0}
    async with serve_in_memory(Kept, settings=settings) as grafana:
        assert await grafana.health() == (True, "OK")  # the first call: no viewer
        await until(lambda: Kept.runs["a"] == 1)
        await grows(grafana, "kept/a")
        await grafana.change_settings(settings | {"other": 1})
        await grafana.health()
        await grows(grafana, "kept/a")  # maybe by the run before, which has ended then
        await until(lambda: Kept.runs == {"a": 1, "b": 0})


async def test_a_kept_stream_ends_after_its_seconds(tmp_path, monkeypatch):
    settings = {"directory": str(tmp_path)}
    now = time.time()
    monkeypatch.setattr(kept_streams, "time", SimpleNamespace(time=lambda: now))
    async with serve_in_memory(Kept, settings=settings) as grafana:
        await (await grafana.follow("short/a")).next()
    async with serve_in_memory(Kept, settings=settings) as grafana:
        await grafana.health()
        await until(lambda: Kept.starts["a"] == 2 and Kept.runs["a"] == 0)
    now += 0.25
    async with serve_in_memory(Kept, settings=settings) as grafana:
        await grafana.health()
        assert Kept.starts["a"] == 2


async def test_of_too_many_kept_streams_the_first_one_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_streams, "KEPT_STREAMS", 2)
    settings = {"directory": str(tmp_path)}
    async with serve_in_memory(Kept, settings=settings) as grafana:
        source = await grafana.data_source(Kept)
        for name in "abc":
            rows = source.follow(f"kept/{name}")
            await anext(rows)
            await rows.aclose()
        await until(lambda: Kept.runs == {"a": 0, "b": 1, "c": 1})
    async with serve_in_memory(Kept, settings=settings) as grafana:
        await grafana.health()
        await grows(grafana, "kept/b")
        await grows(grafana, "kept/c")
        assert Kept.runs == {"a": 0, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"keep_running": 5}, "expected a store for keep_running, got none"),
        ({"keep_running": -1, "store": Retention()}, "of at least 0, got -1"),
        ({"keep_running": float("inf"), "store": Retention()}, "finite number of seconds"),
        ({"keep_running": float("nan"), "store": Retention()}, "finite number of seconds"),
        ({"keep_running": "1h", "store": Retention()}, "must be a number of seconds, got '1h'"),
        ({"keep_running": True, "store": Retention()}, "must be a number of seconds, got True"),
    ],
)
def test_keep_running_is_a_number_of_seconds_of_a_stream_with_a_store(options, error):
    with pytest.raises(TypeError, match=error):
        stream(**options)(Kept.kept.run)


async def test_what_changes_while_a_note_is_written_is_in_the_last_one(tmp_path, monkeypatch):
    async with serve_in_memory(Kept, settings={"directory": str(tmp_path)}) as grafana:
        source = await grafana.data_source(Kept)
        (instance,) = grafana.plugin.instances._current.values()
        write, has_begun = source.row_store.write_note, anyio.Event()

        async def write_slowly(name: str, value: str) -> None:
            has_begun.set()
            await anyio.sleep(0.2)
            await write(name, value)

        monkeypatch.setattr(source.row_store, "write_note", write_slowly)
        instance.kept.watched("kept/a")
        await has_begun.wait()
        instance.kept.watched("kept/b")
    (path,) = tmp_path.glob("*.sqlite")
    async with SqliteStore(tmp_path, name=path.stem) as store:
        note = json.loads(await store.note("kept streams") or "{}")
    assert note == {"kept/a": 0.0, "kept/b": 0.0}
