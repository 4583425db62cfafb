"""Rows that are pushed at one of several servers are stored on all: with a model of the engine."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._store_replication import store_chain, store_filling, store_replica
from aiostream_ds.sources.push import Pushed
from aiostream_ds.stores import Retention
from aiostream_ds.testing import Grafana, serve_in_memory
from tests.cluster.cluster_access import access
from tests.cluster.model_engine import ModelServer

pytestmark = pytest.mark.slow

TIME = 1_700_000_000_000


class Servers:
    """Servers with a source `push` each, which can be stopped and started."""

    def __init__(self, folder: Path, engine: ModelServer) -> None:
        self.folder, self.engine = folder, engine
        self.open: dict[int, Grafana] = {}
        self._tasks: dict[int, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._number = 0

    async def start(
        self, place: int, *, in_memory: bool = False, cipher: Cipher | None = None, **more: Any
    ) -> Grafana:
        self._number += 1
        settings = {"share": True, **more}
        if not in_memory:
            settings["directory"] = str(self.folder / str(place))
        opened, stop = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            number = self._number
            async with serve_in_memory(
                Pushed, settings=settings, cluster=lambda: access(self.engine, number, cipher)
            ) as grafana:
                await grafana.health()
                self.open[place] = grafana
                opened.set()
                await stop.wait()

        self._tasks[place] = stop, asyncio.create_task(run())
        async with asyncio.timeout(20):
            await opened.wait()
        return self.open[place]

    async def stop(self, place: int) -> None:
        del self.open[place]
        stop, task = self._tasks.pop(place)
        stop.set()
        await task

    @property
    def all(self) -> list[Grafana]:
        return list(self.open.values())


@asynccontextmanager
async def servers(
    folder: Path, number: int = 3, engine: ModelServer | None = None, **options: Any
) -> AsyncIterator[Servers]:
    found = Servers(folder, engine or ModelServer())
    for place in range(number):
        await found.start(place, **options)
    try:
        yield found
    finally:
        for place in list(found.open):
            await found.stop(place)


async def push(grafana: Grafana, path: str, *numbers: int, key: str = "") -> dict[str, Any]:
    """Push rows until they are taken."""
    body = json.dumps([{"time": TIME + number, "n": number} for number in numbers]).encode()
    return await push_body(grafana, path, body, key=key)


async def push_body(grafana: Grafana, path: str, body: bytes, key: str = "") -> dict[str, Any]:
    headers = {"Content-Type": ["application/json"]}
    if key:
        headers["Idempotency-Key"] = [key]
    with anyio.fail_after(30):
        while True:
            answer = await grafana.resource(
                f"push/{path}", method="POST", body=body, headers=headers
            )
            if answer.status == 200:
                return json.loads(answer.body)
            assert answer.status == 503 and answer.headers["Retry-After"], answer
            await anyio.sleep(0.1)


async def stored(grafana: Grafana, path: str = "a") -> tuple[list[tuple[int, int]], str]:
    """The rows of a path as (cursor, n), and their epoch."""
    source = await grafana.data_source(Pushed)
    page = await source._store.rows_after(path, 0, 100_000)
    return [(row["cursor"], row["n"]) for row in page.rows], page.epoch


async def agree(grafanas: list[Grafana], count: int, path: str = "a") -> list[tuple[int, int]]:
    """Wait until all servers have so many rows; they must be equal."""
    end = anyio.current_time() + 20
    while True:
        found = [await stored(grafana, path) for grafana in grafanas]
        if all(len(rows) >= count for rows, _ in found) and found.count(found[0]) == len(found):
            break
        assert anyio.current_time() < end, found
        await anyio.sleep(0.02)
    rows = found[0][0]
    assert [cursor for cursor, _ in rows] == list(range(rows[0][0], rows[0][0] + len(rows)))
    return rows


async def test_rows_of_all_servers_are_stored_on_all_with_the_same_cursors(tmp_path):
    async with servers(tmp_path) as found:
        for number in range(30):
            await push(found.all[number % 3], "a", number)
        assert await agree(found.all, 30) == [(n + 1, n) for n in range(30)]


async def test_pushes_at_the_same_time_are_each_stored_once(tmp_path):
    async with servers(tmp_path) as found:
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(push, found.all[number % 3], f"p{number % 2}", number)
        for path in (0, 1):
            rows = await agree(found.all, 30, f"p{path}")
            assert sorted(n for _, n in rows) == list(range(path, 60, 2))


async def test_a_batch_that_is_repeated_at_another_server_is_stored_once(tmp_path):
    async with servers(tmp_path) as found:
        first = await push(found.all[0], "a", 1, 2, 3, key="k")
        again = [await push(grafana, "a", 1, 2, 3, key="k") for grafana in found.all]
        assert first["last"] == 3 and "repeated" not in first
        assert all(each["last"] == 3 and each["repeated"] for each in again)
        async with anyio.create_task_group() as tasks:  # at the same time
            for grafana in found.all * 3:
                tasks.start_soon(lambda each=grafana: push(each, "a", 4, key="k2"))
        assert [n for _, n in await agree(found.all, 4)] == [1, 2, 3, 4]


async def test_a_viewer_at_another_server_sees_the_rows_live(tmp_path):
    async with servers(tmp_path) as found:
        viewer = await found.all[2].follow("rows/a")
        await anyio.sleep(0.2)
        for number in range(5):
            await push(found.all[number % 2], "a", number)
        assert [row["n"] for row in await viewer.take(5)] == list(range(5))


async def test_a_server_that_was_away_catches_up_from_the_log(tmp_path):
    async with servers(tmp_path) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        await found.stop(2)
        for number in range(1, 10):
            await push(found.all[number % 2], "a", number, key=f"k{number}")
        await found.start(2)
        await agree(found.all, 10)
        assert (await push(found.open[2], "a", 9, key="k9"))["repeated"]


@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "memory"])
async def test_a_server_beyond_the_log_is_filled_from_another_one(tmp_path, in_memory):
    engine = ModelServer(entries=5)
    async with servers(tmp_path, engine=engine, in_memory=in_memory) as found:
        for path in "ab":
            await push(found.all[0], path, 0)
        await agree(found.all, 1)
        await found.stop(2)
        for number in range(1, 30):
            await push(found.all[number % 2], "ab"[number % 2], number, key=f"k{number}")
        await found.start(2, in_memory=in_memory)
        for path in "ab":
            rows = await agree(found.all, 15, path)
            assert len(rows) in (15, 16)
        assert (await push(found.open[2], "b", 3, key="k3"))["repeated"]
        await push(found.open[2], "a", 99)
        await agree(found.all, 16, "a")


async def stop_with_rows_missing(found: Servers) -> None:
    """Stop both servers, the second one 29 rows before the first: more than the engine keeps."""
    await push(found.all[0], "a", 0)
    await agree(found.all, 1)
    await found.stop(1)
    for number in range(1, 30):
        await push(found.all[0], "a", number)
    await found.stop(0)


async def test_what_no_other_server_has_is_reported(tmp_path):
    engine = ModelServer(entries=5)
    async with servers(tmp_path, number=2, engine=engine) as found:
        await stop_with_rows_missing(found)
        grafana = await found.start(1)
        with anyio.fail_after(20):
            while "lacks" not in (message := (await grafana.health())[1]):
                await anyio.sleep(0.05)
        assert "this server lacks 24 rows that were pushed while it was away" in message
        rows, _ = await stored(grafana)
        assert rows == [(1, 0), *((n + 1, n) for n in range(25, 30))]


async def test_a_server_that_is_filled_from_one_that_lacks_rows_has_the_same_rows(tmp_path):
    engine = ModelServer(entries=5)
    async with servers(tmp_path, number=2, engine=engine) as found:
        await stop_with_rows_missing(found)
        first, second = await found.start(1), await found.start(2)
        await push(first, "a", 30)
        with anyio.fail_after(20):
            while await stored(first) != await stored(second):
                await anyio.sleep(0.05)
        rows, _ = await stored(second)
        assert rows == [(1, 0), *((n + 1, n) for n in range(25, 31))]
        for grafana in (first, second):
            assert "this server lacks 24 rows" in (await grafana.health())[1]


async def test_a_channel_whose_rows_were_all_removed_goes_on_at_a_server_that_is_filled(tmp_path):
    engine = ModelServer(entries=5)
    async with servers(tmp_path, number=1, engine=engine, keepDays=1) as found:
        for number in range(3):
            await push(found.all[0], "old", number)
        for number in range(10):
            await push(found.all[0], "a", number)
        source = await found.all[0].data_source(Pushed)
        source._store.retain("old", Retention(seconds=0.001))
        with anyio.fail_after(20):
            while (await stored(found.all[0], "old"))[0]:
                await push(found.all[0], "a", 0)
                await anyio.sleep(0.05)
        await found.start(1)
        await push(found.open[1], "old", 3)
        with anyio.fail_after(20):
            while (await stored(found.open[1], "old"))[0] != [(4, 3)]:
                await anyio.sleep(0.05)
        assert "lacks" not in (await found.open[1].health())[1]


async def test_a_key_is_not_that_of_a_part_of_another_batch(tmp_path):
    async with servers(tmp_path, number=1) as found:
        rows = [{"time": TIME + n, "n": n, "text": f"{n:100}"} for n in range(15_000)]
        await push_body(found.all[0], "a", json.dumps(rows).encode(), key="large")
        answer = await push(found.all[0], "a", 15_000, key="large part 1")
        assert answer == {"taken": 1, "refused": [], "last": 15_001}


async def test_another_directory_does_not_end_what_the_server_has_of_the_cluster(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, number=2, engine=engine) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        engine.is_up = False
        engine.disconnect_all()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(push, found.all[1], "a", 1)  # keeps the first store open
            await anyio.sleep(0.2)
            await found.all[1].change_settings({"share": True, "directory": f"{tmp_path}/other"})
            await found.all[1].health()
            assert len(found.all[1].plugin.shared.stores._running) == 2
            engine.is_up = True
        with anyio.fail_after(20):
            while len(found.all[1].plugin.shared.stores._running) > 1:
                await anyio.sleep(0.05)
        await agree(found.all, 2)
        (channel,) = (each for name, each in engine.channels.items() if "rows" in name)
        assert channel.members == {"node1", "node2"}
        (watchers,) = (each for name, each in engine.watchers.items() if "rows" in name)
        assert len(watchers) == 2


async def test_a_store_with_the_cursors_of_other_rows_is_not_mixed_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(store_chain, "LINKS", 3)  # it remembers less than it has
    engine = ModelServer()
    async with servers(tmp_path, number=1, engine=engine) as found:
        for number in range(8):
            await push(found.open[0], "a", number)
        await found.stop(0)
        engine.restart(keep=False)
        await found.start(1)
        for number in range(100, 105):
            await push(found.open[1], "a", number)
        await found.stop(1)
        grafana = await found.start(0)
        with anyio.fail_after(10):
            while "not those of the other servers" not in (await grafana.health())[1]:
                await anyio.sleep(0.05)
        answer = await grafana.resource("push/a", method="POST", body=b'[{"n": 1}]')
        assert answer.status == 503 and b"give this server another directory" in answer.body
        await found.start(1)
        await push(found.open[1], "a", 105)
        assert [n for _, n in (await stored(found.open[1]))[0]] == list(range(100, 106))
        assert [n for _, n in (await stored(grafana))[0]] == list(range(8))


async def test_rows_that_wait_for_the_engine_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(store_replica, "WAIT_SECONDS", 60.0)  # a slow machine decodes for long
    engine = ModelServer()
    fast = {"bytesPerSecond": 1_000_000_000, "rowsPerSecond": 1_000_000_000}  # of a fast machine
    async with servers(tmp_path, number=1, engine=engine, **fast) as found:
        engine.is_up = False
        engine.disconnect_all()
        texts = [os.urandom(400).hex() for _ in range(1_000)]
        body = json.dumps([{"n": 1, "text": text} for text in texts]).encode()
        reasons = []

        async def send() -> None:
            while True:
                answer = await found.all[0].resource("push/a", method="POST", body=body)
                assert answer.status == 503 and "Retry-After" in answer.headers, answer
                if b"decoding" not in answer.body:
                    break
                await anyio.sleep(0.05)
            reasons.append(json.loads(answer.body)["message"])
            tasks.cancel_scope.cancel()  # the first answer is that of one beyond the bound

        async with anyio.create_task_group() as tasks:
            for _ in range(150):
                tasks.start_soon(send)
        assert reasons and all("too many rows wait to be stored" in each for each in reasons)


async def test_without_the_engine_a_push_is_refused_for_now_and_later_taken(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        await push(found.all[0], "a", 0)
        engine.is_up = False
        engine.disconnect_all()
        body = b'[{"n": 1}]'
        answer = await found.all[0].resource("push/a", method="POST", body=body)
        assert (answer.status, answer.headers["Retry-After"]) == (503, ["5"])
        assert b"not stored on all servers" in answer.body
        assert "pushes are refused" in (await found.all[0].health())[1]
        engine.is_up = True
        await push(found.all[0], "a", 1)
        await agree(found.all, 2)


@pytest.mark.parametrize("lost", [1, 3, 1000])
async def test_rows_that_the_engine_has_lost_are_written_to_it_again(tmp_path, lost):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        for number in range(10):
            await push(found.all[number % 3], "a", number, key=f"k{number}" if number % 2 else "")
        await agree(found.all, 10)
        engine.lose_writes(lost)
        for number in range(10, 20):
            await push(found.all[number % 3], "a", number)
        rows = await agree(found.all, 20)
        assert sorted(n for _, n in rows) == list(range(20))


async def test_acknowledged_rows_survive_when_the_engine_and_the_server_fail_together(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        for place in (1, 2):
            connection = engine_of(found.open[place])
            connection.is_cut = True
            connection.disconnect()
        await push(found.all[0], "a", 1)
        await push(found.all[0], "a", 2, key="k2")
        await found.stop(0)
        taken = [key for key in engine.channels if not key.startswith("_")]
        for key in taken:  # the last two entries are lost, before the others have seen them
            for _ in range(2):
                engine.channels[key].log.pop()
        for place in (1, 2):
            connection = engine_of(found.open[place])
            connection.is_cut = False
        await push(found.all[0], "a", 3)
        await push(found.all[1], "a", 4)
        await found.start(0)
        rows = await agree(found.all, 5)
        assert sorted(n for _, n in rows) == list(range(5))
        assert (await push(found.all[1], "a", 2, key="k2"))["repeated"]


def engine_of(grafana: Grafana) -> Any:
    return grafana.plugin.shared.node.engine


async def test_a_large_body_is_several_entries(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        rows = [{"time": TIME + n, "n": n, "text": f"{n:100}"} for n in range(15_000)]
        for grafana in found.all[:2]:
            await push_body(grafana, "a", json.dumps(rows).encode(), key="large")
        assert [n for _, n in await agree(found.all, 15_000)] == list(range(15_000))
        (log,) = (each.log for name, each in engine.channels.items() if "rows" in name)
        assert len(log) > 2


async def test_a_new_server_is_filled_also_if_many_batches_without_a_key_were_in_an_entry(
    tmp_path, monkeypatch
):
    """The ids of all are more than a message of the engine may have."""
    monkeypatch.setattr(store_filling, "_BYTES", 15_000)
    async with servers(tmp_path, 1, ModelServer(entries=5, largest=20_000)) as found:
        store = (await found.open[0].data_source(Pushed))._store
        for start in range(0, 2_000, 100):
            async with anyio.create_task_group() as group:
                for number in range(start, start + 100):
                    row = {"time": TIME + number, "n": number}
                    group.start_soon(store.append, "a", [row])
        await found.start(1)
        assert len(await agree(found.all, 2_000)) == 2_000
        await push(found.open[1], "a", 2_000)
        await agree(found.all, 2_001)


async def test_a_store_that_was_filled_does_not_take_the_beginning_of_another_history_for_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_chain, "LINKS", 3)
    async with servers(tmp_path, 1, ModelServer(entries=2)) as found:
        for number in range(6):
            await push(found.open[0], "a", number)
        await found.start(1)
        rows = await agree(found.all, 6)
        for place in (0, 1):
            await found.stop(place)
        found.engine = ModelServer()
        await found.start(2)
        await push(found.open[2], "a", 10)
        await found.start(1)
        with anyio.fail_after(10):
            while "are not those of the other servers" not in (await found.open[1].health())[1]:
                await anyio.sleep(0.05)
        assert (await stored(found.open[1]))[0] == rows
