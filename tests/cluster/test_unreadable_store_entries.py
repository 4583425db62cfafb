"""Servers without a key find an entry void while those that have it are away: all come to the same
rows, and none is lost that was acknowledged."""

import anyio
import pytest

from aiostream_ds._cluster.engine import START
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._store_replication import store_chain, store_replica
from aiostream_ds._store_replication.store_entries import (
    NO_TAG,
    StoreEntry,
    StoreEntryCodec,
    new_tag,
)
from aiostream_ds._store_replication.void_entries import SHARED_OWNER
from aiostream_ds.sources.push import Pushed
from aiostream_ds.stores.channel_tables import now_ms
from aiostream_ds.stores.row_blocks import split_rows
from aiostream_ds.stores.sqlite_writer import ReplicaBatch
from tests.cluster.model_engine import ModelServer

from .test_shared_store_log import log_of
from .test_shared_stores import TIME, Servers, agree, engine_of, push, servers, stored

pytestmark = pytest.mark.slow

OLD, NEW = b"o" * 32, b"n" * 32


def replaced() -> Cipher:
    return Cipher([NEW])


def both() -> Cipher:
    return Cipher([NEW, OLD])


async def write_with_the_old_key_before_the_next_push(found: Servers, place: int) -> None:
    """A server that has only the old key is faster by one entry, and crashes."""
    replica = (await found.open[place].data_source(Pushed))._store._replica
    name, engine = replica.name, engine_of(found.open[place])
    rows = split_rows([{"time": TIME + 99, "n": 99}], now_ms())
    batch = ReplicaBatch("a", replica.follower.lasts["a"] + 1, rows, None, now_ms())
    chain = replica.follower.chain
    entry = StoreEntry.of(new_tag(), chain.tag, chain.epoch, [batch])
    payload = StoreEntryCodec(name, Cipher([OLD])).encode(entry)
    take = engine.take

    async def take_second(*arguments):
        engine.take = take
        found.engine.take(name, SHARED_OWNER, payload)
        return await take(*arguments)

    engine.take = take_second


@pytest.mark.parametrize("pushes", [1, 3])
async def test_what_was_void_while_its_server_was_away_is_written_again(tmp_path, pushes):
    async with servers(tmp_path, engine=ModelServer(), cipher=Cipher([OLD])) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        await found.stop(1)
        await found.stop(2)
        for number in range(1, 1 + pushes):
            await push(found.open[0], "a", number, key=f"k{number}" if number % 2 else "")
        await found.stop(0)
        await found.start(1, cipher=replaced())
        await found.start(2, cipher=replaced())
        await push(found.open[1], "a", 10)
        await push(found.open[2], "a", 11)
        await found.start(0, cipher=both())
        await push(found.open[0], "a", 12)
        rows = await agree(found.all, 4 + pushes)
        assert sorted(n for _, n in rows) == [0, *range(1, 1 + pushes), 10, 11, 12]
        assert (await push(found.open[2], "a", 1, key="k1"))["repeated"]


async def test_a_server_with_both_keys_that_reads_the_whole_log_counts_what_the_others_count(
    tmp_path,
):
    async with servers(tmp_path, number=2, engine=ModelServer(), cipher=replaced()) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        await write_with_the_old_key_before_the_next_push(found, 0)
        await push(found.open[0], "a", 1)
        await push(found.open[1], "a", 2)
        await found.start(2, cipher=both())
        await push(found.open[2], "a", 3)
        assert [n for _, n in await agree(found.all, 4)] == [0, 1, 2, 3]


async def test_no_push_is_acknowledged_before_what_precedes_it_is_void(tmp_path, monkeypatch):
    monkeypatch.setattr(store_replica, "WAIT_SECONDS", 2.0)
    async with servers(tmp_path, number=1, engine=ModelServer(), cipher=both()) as found:
        await push(found.all[0], "a", 0)
        await found.start(1, cipher=replaced())
        await agree(found.all, 1)
        await write_with_the_old_key_before_the_next_push(found, 1)
        body = b'[{"time": %d, "n": 1}]' % TIME
        answer = await found.open[1].resource("push/a", method="POST", body=body)
        assert answer.status == 503 and b"cluster_encryption_keys" in answer.body, answer
        await found.stop(1)
        await found.start(1, cipher=both())
        await push(found.open[1], "a", 2)
        assert [n for _, n in await agree(found.all, 3)] == [0, 99, 2]


async def test_an_entry_is_found_void_once(tmp_path):
    engine = ModelServer()
    async with servers(tmp_path, engine=engine) as found:
        await push(found.all[0], "a", 0)
        await agree(found.all, 1)
        engine.take(log_of(engine), SHARED_OWNER, b"garbage")
        for number in range(1, 6):
            await push(found.all[number % 3], "a", number)
        await found.start(3)
        await push(found.open[3], "a", 6)
        await agree(found.all, 7)
        page = await engine_of(found.open[3]).read(log_of(engine), START, 100)
        assert len(page.entries) <= 1 + 1 + 3 + 6 + 2  # rows, garbage, one decision of each server


async def test_what_precedes_the_first_entry_that_can_be_read_counts_until_it_is_void(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_replica, "WAIT_SECONDS", 2.0)
    async with servers(tmp_path, number=1, engine=ModelServer(), cipher=Cipher([OLD])) as found:
        await push(found.all[0], "a", 0)
        await found.stop(0)
        await found.start(0, cipher=both())
        name = (await found.open[0].data_source(Pushed))._store._replica.name
        rows = split_rows([{"time": TIME + 99, "n": 99}], now_ms())
        batch = ReplicaBatch("a", 1, rows, None, now_ms())
        entry = StoreEntry.of(new_tag(), NO_TAG, "e", [batch])  # overtaken: also a first one
        payload = StoreEntryCodec(name, Cipher([NEW])).encode(entry)
        found.engine.take(name, SHARED_OWNER, payload)
        await found.start(1, cipher=replaced())
        body = b'[{"time": %d, "n": 1}]' % TIME
        answer = await found.open[1].resource("push/a", method="POST", body=body)
        assert answer.status == 503 and b"cluster_encryption_keys" in answer.body, answer
        assert (await stored(found.open[1]))[0] == []
        await found.stop(1)
        await found.start(1, cipher=both())
        await push(found.open[1], "a", 2)
        assert [n for _, n in await agree(found.all, 2)] == [0, 2]


async def write_with_the_old_key_and_six_more(found: Servers) -> None:
    """The first server writes an entry that the others cannot read, and more that they can."""
    await push(found.open[0], "a", 0)
    await agree(found.all, 1)
    await found.stop(1)
    await found.stop(2)
    await found.stop(0)
    await found.start(0, cipher=Cipher([OLD, NEW]))
    await push(found.open[0], "a", 1)
    await found.stop(0)
    await found.start(0, cipher=both())
    for number in range(2, 8):
        await push(found.open[0], "a", number, key=f"k{number}" if number % 2 else "")
    await found.stop(0)
    await found.start(1, cipher=replaced())
    await found.start(2, cipher=replaced())
    await push(found.open[1], "a", 10)


async def test_a_void_entry_is_undone_also_if_the_store_has_forgotten_its_place(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store_chain, "LINKS", 3)
    async with servers(tmp_path, engine=ModelServer(), cipher=replaced()) as found:
        await write_with_the_old_key_and_six_more(found)
        await found.start(0, cipher=both())
        await push(found.open[0], "a", 11)
        rows = await agree(found.all, 10)
        assert sorted(n for _, n in rows) == [*range(8), 10, 11]
        assert (await push(found.open[2], "a", 7, key="k7"))["repeated"]


async def test_a_void_entry_that_the_log_does_not_have_any_more_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(store_chain, "LINKS", 3)
    engine = ModelServer()
    async with servers(tmp_path, engine=engine, cipher=replaced()) as found:
        await write_with_the_old_key_and_six_more(found)
        kept = max(engine.channels.values(), key=lambda each: len(each.log))
        for _ in range(2):
            kept.removed = kept.log.popleft().id
        await found.start(0, cipher=both())
        with anyio.fail_after(10):
            while "are not those of the other servers" not in (await found.open[0].health())[1]:
                await anyio.sleep(0.05)
        await push(found.open[1], "a", 11)
        assert [n for _, n in (await stored(found.open[0]))[0]] == list(range(8))


async def test_rows_that_were_written_twice_since_a_void_entry_was_faster_are_stored_once(
    tmp_path,
):
    async with servers(tmp_path, number=1, engine=ModelServer(), cipher=both()) as found:
        await push(found.all[0], "a", 0)
        await write_with_the_old_key_before_the_next_push(found, 0)
        await push(found.open[0], "a", 1)
        await push(found.open[0], "a", 2)
        assert [n for _, n in (await stored(found.open[0]))[0]] == [0, 99, 1, 2]
        await found.stop(0)
        await found.start(1, cipher=replaced())
        await found.start(2, cipher=replaced())
        await push(found.open[1], "a", 3)
        assert sorted(n for _, n in await agree(found.all, 3)) == [0, 1, 3]
        await found.start(0, cipher=both())
        rows = await agree(found.all, 5)
        assert sorted(n for _, n in rows) == [0, 1, 2, 3, 99]
