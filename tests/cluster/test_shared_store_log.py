"""What a server makes of a log of shared stores that is large, or has entries that it cannot
read."""

import tracemalloc
from pathlib import Path
from random import Random

import anyio
import pytest

from aiostream_ds._cluster.engine import START, EntryId
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._store_replication.store_entries import NO_TAG, StoreEntry, new_tag
from aiostream_ds._store_replication.void_entries import SHARED_OWNER
from aiostream_ds.sources.push import Pushed
from aiostream_ds.stores.row_blocks import Piece
from aiostream_ds.stores.sqlite_writer import ReplicaBatch
from tests.cluster.model_engine import ModelServer

from .test_shared_stores import agree, engine_of, push, servers

pytestmark = pytest.mark.slow

BAD_ENTRIES = {"no entry": b"garbage", "empty": b"", "a later format": b"\x07\x01\x02"}


def log_of(engine: ModelServer) -> str:
    (name,) = (name for name in engine.channels if "rows" in name)
    return name


async def write_foreign(engine: ModelServer, payload: bytes) -> None:
    engine.take(log_of(engine), SHARED_OWNER, payload)


@pytest.mark.parametrize("payload", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
async def test_an_entry_that_no_server_can_read_blocks_no_push(tmp_path, payload):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        await found.stop(2)
        await write_foreign(engine, payload)
        await push(found.open[0], "a", 1)
        await push(found.open[1], "a", 2)
        await write_foreign(engine, payload + b"2")
        await found.start(2)
        await push(found.open[2], "a", 3)
        await found.start(3)  # a new server, which reads the whole log
        await push(found.open[3], "a", 4)
        assert [n for _, n in await agree(found.all, 5)] == list(range(5))
        for grafana in found.all:
            assert "pushes are refused" not in (await grafana.health())[1]


async def test_a_log_of_entries_that_cannot_be_read_is_continued(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, number=1, engine=engine) as found:
        await push(found.all[0], "a", 0)
        await found.stop(0)
        engine.channels[log_of(engine)].log.clear()
        await write_foreign(engine, b"garbage")
        await found.start(0)
        await found.start(1)
        await push(found.open[1], "a", 1)
        await push(found.open[0], "a", 2)
        assert [n for _, n in await agree(found.all, 3)] == [0, 1, 2]


async def test_pushes_are_refused_while_another_server_reads_what_this_one_cannot(
    tmp_path, monkeypatch
):
    engine = ModelServer()
    async with servers(tmp_path, number=2, engine=engine) as found:
        await push(found.open[0], "a", 0)
        await agree(found.all, 1)
        replica = (await found.open[1].data_source(Pushed))._store._replica
        read = replica.codec.decode
        with monkeypatch.context() as patch:
            known = {entry.payload for entry in engine.channels[log_of(engine)].log}

            def decode(payload: bytes) -> StoreEntry:  # as without the newest key
                if payload not in known:
                    raise UnreadableMessage("it is encrypted by another key")
                return read(payload)

            asked: list[EntryId] = []
            confirm_void = replica.follower.filler.confirm_void

            async def confirm(id: EntryId) -> None:
                asked.append(id)
                await confirm_void(id)

            patch.setattr(replica.follower.filler, "confirm_void", confirm)
            patch.setattr(replica.codec, "decode", decode)
            await push(found.open[0], "a", 1)
            await agree(found.all[:1], 2)
            with anyio.fail_after(10):  # viewers of this server lack rows, also without a push here
                while "cluster_encryption_keys" not in replica.problem:
                    await anyio.sleep(0.05)
            answer = await found.open[1].resource("push/a", method="POST", body=b'[{"n": 9}]')
            assert answer.status == 503
            assert b"cluster_encryption_keys" in answer.body, answer
            assert len(asked) < 9  # in some eight seconds: the others are not kept busy
            await push(found.open[0], "a", 2)
        assert replica.codec.decode == read
        await push(found.open[1], "a", 3)
        assert [n for _, n in await agree(found.all, 4)] == [0, 1, 2, 3]


async def test_a_server_that_joins_does_not_hold_the_rows_of_the_whole_log(tmp_path: Path):
    engine = ModelServer()
    async with servers(tmp_path, number=1, engine=engine) as found:
        await push(found.all[0], "a", 0)
        replica = (await found.open[0].data_source(Pushed))._store._replica
        codec, first, tag, chance = replica.codec, 2, replica.follower.chain.tag, Random(1)
        name = log_of(engine)
        await found.stop(0)
        for number in range(60):
            data = chance.randbytes(700_000)
            batch = ReplicaBatch(f"b{number}", first, [Piece(1, 0, 0, False, data)], None, 0)
            entry = StoreEntry.of(new_tag(), new_tag(), "epoch", [batch])  # void: of no chain
            engine.take(name, SHARED_OWNER, codec.encode(entry))
        assert tag != NO_TAG and len(engine.channels[name].log) == 61
        tracemalloc.start()
        try:
            await found.start(1)  # without a store: it reads the log for its place
            await push(found.open[1], "a", 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        page = await engine_of(found.open[1]).read(name, START, 100)
        assert not page.is_end
        print("PEAK", peak)
        assert peak < 25_000_000  # of entries with 42 MB
