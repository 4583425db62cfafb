"""The gap rule: whatever is missed, repeated or lost, a message is received once and in order."""

import random
from typing import Any

import pytest

from aiostream_ds._cluster.engine import START, Entry, EntryId, LogPage
from aiostream_ds._cluster.entries import (
    NO_MESSAGE,
    ChannelMessage,
    EntryCodec,
    MessageId,
    TermStart,
    schema_hash,
)
from aiostream_ds._cluster.follower import LogFollower
from aiostream_ds._cluster.log_requests import LogRead, SchemaRead, SourceRead
from aiostream_ds._cluster.sharing import Incoming, Outgoing
from aiostream_ds._frames.packet import CursorRange

CODEC = EntryCodec()


class Log:
    """A log, and the owner that writes it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.removed = START
        self.run = 0
        self.number = 0
        self.before = NO_MESSAGE
        self.schema: bytes | None = None
        self.stored_schema: bytes | None = None

    @property
    def last(self) -> EntryId:
        return self.entries[-1].id if self.entries else START

    def add(self, id: EntryId, content: Any) -> Entry:
        entry = Entry(id, self.last, CODEC.encode(content))
        self.entries.append(entry)
        return entry

    def term(self, term: int, node: str = "a") -> Entry:
        self.run += 1
        self.number = 0
        return self.add(EntryId(term, 0), TermStart(self.run, node))

    def next_id(self) -> EntryId:
        return EntryId(self.last.term, self.last.number + 1)

    def write(
        self, payload: bytes, cursors: CursorRange | None = None, schema: bytes | None = b"s"
    ) -> Entry:
        self.number += 1
        body = None if schema == self.schema else schema
        self.schema = schema
        self.stored_schema = schema
        id = MessageId(self.run, self.number)
        message = ChannelMessage(id, self.before, 0, schema_hash(schema), body, cursors, payload)
        self.before = id
        return self.add(self.next_id(), message)

    def again(self, entry: Entry) -> Entry:
        """Append the message of an entry that was lost."""
        content = CODEC.decode(entry.payload)
        assert isinstance(content, ChannelMessage)
        self.before = content.id
        return self.add(self.next_id(), content)

    def write_again(self, *messages: ChannelMessage) -> list[Entry]:
        """Append lost messages, as the owner has made them."""
        self.before = messages[-1].id
        return [self.add(self.next_id(), message) for message in messages]

    @property
    def owner(self) -> Any:
        return self.run, self.number, self.before, self.schema

    @owner.setter
    def owner(self, owner: Any) -> None:
        """Go on as an earlier owner, who knows nothing of what came later."""
        self.run, self.number, self.before, self.schema = owner

    def lose(self, count: int) -> list[Entry]:
        lost = self.entries[len(self.entries) - count :]
        del self.entries[len(self.entries) - count :]
        return lost

    def trim(self, keep: int) -> None:
        self.removed = self.entries[-keep - 1].id
        del self.entries[:-keep]

    def page(self, after: EntryId, limit: int) -> LogPage:
        found = [entry for entry in self.entries if entry.id > after]
        return LogPage(found[:limit], self.last, after < self.removed)


class Reader:
    """A follower of a log, and what it has received."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.received: list[Incoming] = []
        self.resets: list[str] = []
        self.reads: list[EntryId] = []
        self.follower = LogFollower(CODEC, self.received.append, self.resets.append)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.received]

    def catch_up(self, fill: Any = None) -> None:
        for _ in range(50):
            request = self.follower.request
            if request is None:
                return
            if isinstance(request, LogRead):
                self.reads.append(request.after)
                self.follower.page(self.log.page(*request))
            elif isinstance(request, SchemaRead):
                self.follower.schema(self.log.stored_schema)
            else:
                if fill is not None:
                    fill(request)
                self.follower.filled()
        raise AssertionError(f"reads without end: {self.follower.request}")

    def join(self, tail: int = 10) -> list[Incoming]:
        self.follower.join(self.log.last, tail)
        self.catch_up()
        return self.follower.joined()

    def event(self, entry: Entry) -> None:
        self.follower.event(entry)

    def follow(self, *entries: Entry) -> None:
        for entry in entries:
            self.follower.event(entry)
            self.catch_up()


@pytest.fixture
def log() -> Log:
    log = Log()
    log.term(100)
    return log


@pytest.fixture
def reader(log: Log) -> Reader:
    reader = Reader(log)
    assert reader.join() == []
    return reader


def test_events_in_order_need_no_read(log, reader):
    reader.reads.clear()
    reader.follow(*(log.write(b"%d" % n) for n in range(3)))
    assert reader.payloads == [b"0", b"1", b"2"] and reader.reads == []
    assert reader.received[1].schema is reader.received[0].schema == b"s"


def test_a_repeated_event_is_ignored(log, reader):
    entry = log.write(b"0")
    reader.follow(entry, entry, log.entries[0])
    reader.follow(log.write(b"1"))
    assert reader.payloads == [b"0", b"1"] and reader.resets == []


def test_a_repeated_event_of_the_last_entry_is_not_decoded(log, reader):
    class Counting(EntryCodec):
        decoded = 0

        def decode(self, payload):
            self.decoded += 1
            return super().decode(payload)

    codec = reader.follower._codec = Counting()
    entry = log.write(b"0")
    reader.follow(entry)
    decoded = codec.decoded
    reader.follow(entry)
    assert codec.decoded == decoded
    reader.follow(log.write(b"1"))
    assert reader.payloads == [b"0", b"1"] and reader.resets == []


def test_missed_events_are_read(log, reader):
    entries = [log.write(b"%d" % n) for n in range(4)]
    reader.follow(entries[0], entries[3])
    assert reader.payloads == [b"0", b"1", b"2", b"3"]


def test_events_during_a_read_are_kept(log, reader):
    entries = [log.write(b"%d" % n) for n in range(3)]
    reader.event(entries[0])
    reader.event(entries[2])
    request = reader.follower.request
    assert isinstance(request, LogRead)
    page = log.page(*request)
    reader.event(log.write(b"3"))
    reader.event(log.write(b"4"))
    reader.follower.page(page)
    reader.catch_up()
    assert reader.payloads == [b"0", b"1", b"2", b"3", b"4"]


def test_a_term_of_another_owner_goes_on(log, reader):
    reader.follow(log.write(b"0"), log.term(200, "b"), log.write(b"1"))
    assert reader.payloads == [b"0", b"1"] and reader.resets == []
    assert (reader.follower.owner, reader.follower.term) == ("b", 200)


def test_a_reader_joins_at_the_end_with_the_tail(log):
    for n in range(300):
        log.write(b"%d" % n)
    reader = Reader(log)
    tail = reader.join(tail=10)
    assert [m.payload for m in tail] == [b"%d" % n for n in range(290, 300)]
    assert {m.schema for m in tail} == {b"s"}
    assert len(reader.reads) == 1  # it goes on when it has the schema
    reader.follow(log.write(b"new"))
    assert reader.payloads == [b"new"]


def test_who_needs_the_newest_message_only_reads_the_end_of_the_log(log):
    for n in range(300):
        log.write(b"%d" % n, CursorRange("e", n, n + 1))
    reader = Reader(log)
    assert [m.payload for m in reader.join(tail=1)] == [b"299"]
    assert reader.reads == [log.entries[-3].id]
    reader.follow(log.write(b"new", CursorRange("e", 300, 301)))
    assert reader.payloads == [b"new"] and reader.resets == []


@pytest.mark.parametrize(("takes", "reads"), [(0, 1), (1, 2), (3, 4), (20, 9)])
def test_who_needs_the_newest_message_only_reads_the_last_terms_if_these_are_short(
    log, takes, reads
):
    for n in range(300):
        log.write(b"%d" % n, CursorRange("e", n, n + 1))
    log.term(200)
    log.write(b"300", CursorRange("e", 300, 301))
    for take in range(takes):
        log.term(201 + take)
    reader = Reader(log)
    assert [m.payload for m in reader.join(tail=1)] == [b"300"]
    assert len(set(reader.reads)) == reads + (takes == 20)  # the schema is asked for, too
    assert (START in reader.reads) == (takes == 20)
    assert (reader.follower.term, reader.follower.owner) == (log.last.term, "a")
    reader.follow(log.write(b"new", CursorRange("e", 301, 302)))
    assert reader.payloads == [b"new"] and reader.resets == []


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_newest_message_of_a_log_that_has_dropped_the_others_is_found(log, kept):
    log.write(b"0", CursorRange("e", 0, 1))
    log.write(b"1", CursorRange("e", 1, 2))
    log.term(200)
    log.term(201)
    log.trim(kept)
    tail = Reader(log).join(tail=1)
    assert [m.payload for m in tail] == [b"1"][: kept == 3]


def test_who_has_joined_by_the_newest_message_does_not_lose_or_repeat_some_after_a_loss(log):
    for n in range(20):
        log.write(b"%d" % n, CursorRange("e", n, n + 1))
    log.term(200)
    for n in range(20, 25):
        log.write(b"%d" % n, CursorRange("e", n, n + 1))
    reader = Reader(log)
    assert [m.payload for m in reader.join(tail=1)] == [b"24"]
    log.lose(6)
    log.before = MessageId(1, 20)
    start = log.term(300, "c")  # who has not received those
    assert reader.follower.lost_messages() == []
    reader.follow(start, *(log.write(b"%d" % n, CursorRange("e", n, n + 1)) for n in range(20, 27)))
    assert reader.payloads == [b"25", b"26"] and reader.resets == []


def test_a_term_is_known_whose_first_entry_the_log_has_no_more(log):
    log.write(b"0")
    reader = Reader(log)
    reader.join()
    assert (reader.follower.term, reader.follower.owner) == (log.last.term, "a")
    log.term(200, "b")
    for n in range(1, 4):
        log.write(b"%d" % n)
    log.trim(2)
    reader.follow(log.entries[-1])
    assert (reader.follower.term, reader.follower.owner) == (200, "")
    reader.follow(log.term(201, "c"))
    assert (reader.follower.term, reader.follower.owner) == (201, "c")


def test_the_tail_is_found_before_a_new_term(log):
    log.write(b"0")
    log.write(b"1")
    log.term(200)
    assert [m.payload for m in Reader(log).join()] == [b"0", b"1"]


def test_a_tail_with_a_hole_begins_after_it_and_has_no_row_twice(log):
    for prev, last in ((0, 2), (5, 7), (6, 9), (8, 9)):
        log.write(b"%d" % last, CursorRange("e", prev, last))
    tail = Reader(log).join()
    assert [(m.payload, m.after) for m in tail] == [(b"7", None), (b"9", 7)]


def test_rows_after_a_tail_that_ends_with_rows_written_again_are_received_once(log):
    for prev, last in ((20, 22), (22, 26), (9, 11)):
        log.write(b"%d" % last, CursorRange("e", prev, last))
    reader = Reader(log)
    tail = reader.join()
    assert [m.payload for m in tail] == [b"22", b"26"]
    assert reader.follower.delivered == tail[-1]
    rows = [CursorRange("e", 11, 25), CursorRange("e", 25, 31), CursorRange("e", 31, 32)]
    reader.follow(*[log.write(b"%d" % row.last, row) for row in rows])
    assert [(m.payload, m.after) for m in reader.received] == [(b"31", 26), (b"32", None)]
    assert reader.resets == []


@pytest.mark.parametrize("end", [1, 2])
def test_a_tail_begins_after_messages_whose_schema_nobody_has(log, end):
    log.write(b"1", CursorRange("e", 0, 1))
    log.schema = b"gone"  # an entry before had it
    log.write(b"2", CursorRange("e", 1, 2), schema=b"gone")
    log.stored_schema = None
    reader = Reader(log)
    rows = [CursorRange("e", 2, 3), CursorRange("e", 3, 4)]
    for row in rows[: end - 1]:
        log.write(b"%d" % row.last, row, schema=b"s")
    log.stored_schema = None
    tail = reader.join()
    reader.follow(*[log.write(b"%d" % row.last, row, schema=b"s") for row in rows[end - 1 :]])
    assert [m.payload for m in [*tail, *reader.received]] == [b"3", b"4"]
    assert reader.resets == []


def test_entries_that_were_removed_before_they_were_read_are_a_reset(log, reader):
    first = log.write(b"0")
    reader.follow(first)
    entries = [log.write(b"%d" % n) for n in range(1, 10)]
    log.trim(3)
    reader.follow(entries[-1])
    assert reader.payloads == [b"0", b"7", b"8", b"9"] and len(reader.resets) == 1
    reader.follow(log.write(b"10"))
    assert len(reader.resets) == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_lost_entries_that_are_appended_again_are_received_once(log, reader, lost):
    late = Reader(log)
    late.join()
    entries = [log.write(b"%d" % n) for n in range(4)]
    reader.follow(*entries)
    late.follow(entries[0])
    gone = log.lose(lost)
    start = log.term(200)
    again = [log.again(entry) for entry in gone]
    after = log.write(b"4")
    for each in (reader, late):
        each.follow(start, *again, after)
        assert each.payloads == [b"0", b"1", b"2", b"3", b"4"] and each.resets == []


def test_a_log_that_ends_below_the_position_is_noticed(log, reader):
    reader.follow(log.write(b"0"), log.write(b"1"))
    log.lose(1)
    reader.follower.reconnected()
    reader.catch_up()
    assert reader.follower.regressed and reader.follower.position == log.last
    assert reader.payloads == [b"0", b"1"] and reader.resets == []


def test_the_end_of_the_log_is_compared_with_the_position_at_the_question(log, reader):
    reader.follow(log.write(b"0"))
    before = reader.follower.position
    reader.follow(log.write(b"1"))
    reader.follower.compare_end(before, before)  # an answer that was made before the event
    assert reader.follower.request is None
    log.write(b"2")
    reader.follower.compare_end(log.last, before)
    reader.catch_up()
    assert reader.payloads == [b"0", b"1", b"2"]


@pytest.mark.parametrize("seen", [0, 1, 2, 3])
def test_a_term_that_is_given_out_again_is_another_one(log, reader, seen):
    """The engine has lost a term, and another node gets the same number."""
    reader.follow(log.write(b"0"))
    start = log.term(200, "b")
    reader.follow(*[start, log.write(b"lost 1"), log.write(b"lost 2")][:seen])
    log.lose(3)
    log.before = MessageId(1, 1)
    log.term(200, "c")
    log.schema = b"s"
    entries = [log.write(b"%d" % n) for n in range(1, 5)]
    reader.follow(entries[-1])
    kept = [p for p in reader.payloads if not p.startswith(b"lost")]
    assert kept == [b"0", b"1", b"2", b"3", b"4"]
    assert len(reader.resets) == (seen > 1)  # what it has received, others have not
    assert reader.follower.owner == ("b" if seen == 1 else "c")  # a repeated start is not read


def test_an_event_of_a_lost_entry_does_not_read_without_end(log, reader):
    lost = [log.write(b"0"), log.write(b"1"), log.write(b"2")]
    log.lose(3)
    reader.follow(lost[2])
    assert reader.follower.request is None and reader.payloads == []


def test_a_log_that_is_gone_and_begins_again_is_a_reset(log, reader):
    reader.follow(log.write(b"0"))
    log.lose(2)
    log.before = NO_MESSAGE
    log.term(300)
    reader.follow(log.write(b"1"))
    assert reader.payloads == [b"0", b"1"] and len(reader.resets) == 1


def test_what_the_engine_has_lost_is_known_to_the_owner(log, reader):
    reader.follow(*(log.write(b"%d" % n) for n in range(5)))
    log.lose(2)
    reader.follow(log.term(200))
    lost = reader.follower.lost_messages()
    assert [message.payload for message in lost] == [b"3", b"4"]


@pytest.mark.parametrize("seen", [False, True], ids=["before the repair", "after it"])
def test_what_was_lost_before_a_late_message_of_an_earlier_owner_is_written_again(
    log, reader, seen
):
    """The engine has lost a term, and then gets the message that its owner has overtaken."""
    other = Reader(log)
    other.join()
    first = [log.write(b"0"), log.write(b"1")]
    other.follow(*first)
    earlier = log.owner
    reader.follow(
        *first, log.term(200, "b"), log.write(b"2", schema=b"t"), log.write(b"3", schema=b"t")
    )
    log.lose(3)
    run, log.owner = log.run, earlier
    late = log.write(b"late")
    log.run = run
    if seen:
        other.follow(late)
    reader.follow(late, log.term(300, "b"))
    lost = reader.follower.lost_messages()
    assert [message.payload for message in lost] == [b"2", b"3"]
    again = []
    for message in tuple(lost):
        again += log.write_again(reader.follower.again(message))
        reader.follow(again[-1])
    assert reader.follower.lost_messages() == []
    log.schema = b"t"
    after = log.write(b"4", schema=b"t")
    reader.follow(after)
    other.follow(*again, after)
    assert reader.payloads == [b"0", b"1", b"2", b"3", b"late", b"4"]
    assert other.payloads == [b"0", b"1", b"late", b"2", b"3", b"4"]
    for each in (reader, other):
        schemas = {message.payload: message.schema for message in each.received}
        assert [schemas[payload] for payload in (b"1", b"2", b"3", b"late")] == [
            b"s", b"t", b"t", b"s",
        ]  # fmt: skip
        assert len(each.resets) == 1  # the same rows came in another order


def test_what_is_written_again_is_lost_again_with_what_came_late(log, reader):
    first = [log.write(b"0"), log.write(b"1")]
    earlier = log.owner
    reader.follow(*first, log.term(200, "b"), log.write(b"2"), log.write(b"3"))
    log.lose(3)
    run, log.owner = log.run, earlier
    late = log.write(b"late")
    log.run = run
    reader.follow(late, log.term(300, "b"))
    reader.follow(*log.write_again(*reader.follower.lost_messages()))
    assert reader.follower.lost_messages() == []
    log.lose(3)  # the second of the two, and what was late
    log.lose(1)
    reader.follow(log.term(400, "b"))
    lost = reader.follower.lost_messages()
    assert [message.payload for message in lost] == [b"late", b"2", b"3"]


@pytest.mark.parametrize("near", [False, True], ids=["from the start", "near its end"])
def test_messages_that_the_log_has_dropped_or_that_were_not_read_again_are_not_lost(
    log, reader, near
):
    reader.follow(*(log.write(b"%d" % n) for n in range(100)))
    gone = log.lose(2)
    log.trim(20)
    if near:
        reader.follower.reconnected()
        reader.catch_up()
        assert reader.reads[-1] == EntryId(100, 98 - 64)
    else:
        reader.follow(log.term(200))
        assert reader.reads[-1] == START
    lost = reader.follower.lost_messages()
    assert [message.payload for message in lost] == [b"98", b"99"] and len(gone) == 2
    assert reader.resets == []


def test_a_message_that_is_too_large_is_not_lost(log, reader):
    reader.follow(log.write(b"0"))
    outgoing = Outgoing(b"large", b"s")
    log.number += 1
    message = reader.follower.message(MessageId(log.run, log.number), outgoing, 0)
    reader.follower.skipped(message)
    assert reader.follower.lost_messages() == []
    log.before = message.id
    reader.follow(log.write(b"1"))
    assert reader.payloads == [b"0", b"1"] and reader.resets == []


def test_after_a_loss_what_is_older_than_a_reader_is_not_new_to_it(log):
    for n in range(20):
        log.write(b"%d" % n)
    log.term(200)
    for n in range(20, 25):
        log.write(b"%d" % n)
    reader = Reader(log)
    assert [m.payload for m in reader.join(tail=2)] == [b"23", b"24"]
    gone = log.lose(1)
    reader.follow(log.term(300), log.again(gone[0]), log.write(b"25"))
    assert reader.payloads == [b"25"] and reader.resets == []
    assert (reader.follower.term, reader.follower.owner) == (300, "a")


def test_after_a_loss_of_all_that_a_reader_has_received_older_messages_are_not_new_to_it(log):
    for n in range(20):
        log.write(b"%d" % n)
    log.term(200, "b")
    for n in range(20, 25):
        log.write(b"%d" % n)
    reader = Reader(log)
    reader.join(tail=2)
    gone = log.lose(6)[1:]
    reader.follow(log.term(300, "c"), *[log.again(entry) for entry in gone], log.write(b"25"))
    assert reader.payloads == [b"25"] and len(reader.resets) == 1  # others may have come late


@pytest.mark.parametrize("has_cursors", [False, True])
@pytest.mark.parametrize("has_delivered", [False, True])
def test_after_a_loss_what_was_passed_over_at_the_return_of_the_engine_is_not_new(
    log, has_cursors, has_delivered
):
    def rows(last: int) -> CursorRange | None:
        return CursorRange("e", last - 1, last) if has_cursors else None

    for n in range(1, 21):
        log.write(b"%d" % n, rows(n))
    log.term(200)
    for n in range(21, 101):
        log.write(b"%d" % n, rows(n))
    reader = Reader(log)
    reader.follower.joined()
    if has_delivered:
        reader.follower.deliver_local(Outgoing(b"local", b"s", rows(50)))
    reader.follower.rejoin(log.last)
    reader.catch_up()
    before = reader.payloads
    gone = log.lose(1)
    reader.follow(log.term(300), log.again(gone[0]), log.write(b"101", rows(101)))
    assert reader.payloads[len(before) :] == [b"101"]
    assert len(reader.resets) == (has_delivered and not has_cursors)


def test_a_hole_in_a_long_log_is_not_read_without_end(log):
    for n in range(300):
        log.write(b"%d" % n)
    reader = Reader(log)
    reader.join()
    log.term(200)
    log.before = NO_MESSAGE  # its owner has delivered rows alone
    reader.follow(log.write(b"300"), log.write(b"301"))
    assert reader.payloads == [b"300", b"301"] and len(reader.resets) == 1


@pytest.mark.parametrize(("size", "kept"), [(100, 256), (10_000, 6), (100_000, 4)])
def test_kept_messages_have_a_bound(log, reader, size, kept):
    reader.follow(*(log.write(bytes(size)) for _ in range(300)))
    log.lose(301)
    reader.follower.reconnected()
    reader.catch_up()
    assert len(reader.follower.lost_messages()) == kept


@pytest.mark.parametrize("sizes", [(100_000, 100_000), (100_000, 10)])
def test_large_messages_that_were_lost_are_written_again(log, reader, sizes):
    other = Reader(log)
    other.join()
    reader.follow(*(log.write(bytes(size)) for size in sizes))
    log.lose(2)
    start = log.term(200)
    reader.follow(start)
    other.follow(start, *log.write_again(*reader.follower.lost_messages()))
    assert [len(payload) for payload in other.payloads] == list(sizes) and other.resets == []


# -- cursors -------------------------------------------------------------------------------------


def cursors(prev: int, last: int, epoch: str = "e") -> CursorRange:
    return CursorRange(epoch, prev, last)


def test_rows_that_were_received_are_skipped(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)))
    log.before = NO_MESSAGE  # another owner reads the source again
    reader.follow(log.write(b"3-5", cursors(3, 5)), log.write(b"4-8", cursors(4, 8)))
    assert [(m.payload, m.after) for m in reader.received] == [(b"0-5", None), (b"4-8", 5)]
    assert reader.resets == []


def test_a_message_without_rows_is_received(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)), log.write(b"status", cursors(5, 5)))
    assert reader.payloads == [b"0-5", b"status"]


def test_another_epoch_is_received_whole(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)), log.write(b"0-3", cursors(0, 3, "f")))
    assert [m.after for m in reader.received] == [None, None]


def test_rows_that_the_log_does_not_have_are_read_from_the_source(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)))
    entries = [log.write(b"%d" % n, cursors(n, n + 1)) for n in range(5, 20)]
    log.trim(3)

    def fill(request: SourceRead) -> None:
        assert request.until == 17
        reader.follower.deliver_local(Outgoing(b"5-18", b"s", cursors(5, 18)))

    reader.event(entries[-1])
    reader.catch_up(fill)
    assert [(m.payload, m.after) for m in reader.received] == [
        (b"0-5", None), (b"5-18", None), (b"18", None), (b"19", None),
    ]  # fmt: skip
    assert reader.resets == []


def test_rows_that_the_source_does_not_have_either_are_a_reset(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)))
    reader.event(log.write(b"9-12", cursors(9, 12)))
    log.before = NO_MESSAGE
    assert reader.payloads == [b"0-5", b"9-12"]  # the owner's source has skipped these
    log.run += 1
    reader.follow(log.write(b"20-22", cursors(20, 22)))
    assert reader.payloads[-1] == b"20-22" and len(reader.resets) == 1


def test_rows_are_not_lost_if_the_log_has_gone_on_with_later_ones(log, reader):
    """The next owner would write them after these, and read the source again from there."""
    reader.follow(*(log.write(b"%d" % n, cursors(n - 1, n)) for n in range(1, 7)))
    reader.follow(log.write(b"status", cursors(6, 6)))
    log.lose(3)
    log.before = MessageId(1, 4)
    reader.follow(log.term(200, "b"), log.write(b"4-5", cursors(4, 5)))
    lost = reader.follower.lost_messages()
    assert [message.payload for message in lost] == [b"6", b"status"]
    reader.follow(log.write(b"5-6", cursors(5, 6)))
    assert [message.payload for message in reader.follower.lost_messages()] == [b"status"]
    reader.follow(log.write(b"6-9", cursors(6, 9)), log.term(300))
    assert reader.follower.lost_messages() == []
    assert reader.payloads[-2:] == [b"status", b"6-9"] and reader.resets == []


def test_who_joins_by_the_newest_message_after_a_loss_has_no_row_twice(log, reader):
    reader.follow(*(log.write(b"%d" % n, cursors(n - 1, n)) for n in range(1, 6)))
    earlier = log.owner
    reader.follow(log.term(200, "b"))
    reader.follow(*(log.write(b"%d" % n, cursors(n - 1, n)) for n in range(6, 9)))
    log.lose(4)
    log.owner = earlier
    reader.follow(log.write(b"5-9", cursors(5, 9)), log.term(300, "b"))
    lost = reader.follower.lost_messages()
    reader.follow(*(log.write_again(*lost) if lost else ()))
    other = Reader(log)
    assert [message.payload for message in other.join(tail=1)] == [b"5-9"]
    outgoing = Outgoing(b"10", b"s", cursors(9, 10))
    entry = log.add(log.next_id(), reader.follower.message(MessageId(9, 1), outgoing, 0))
    reader.follow(entry)
    other.follow(entry)  # without the source
    assert reader.payloads[-3:] == [b"8", b"5-9", b"10"] and other.payloads == [b"10"]
    assert reader.resets == other.resets == []


@pytest.mark.parametrize(
    ("prev", "follows"), [(5, True), (7, False), (8, False), (9, True)],
    ids=["read again", "a part alone", "all alone", "the source has skipped some"],
)  # fmt: skip
def test_an_owner_that_has_delivered_rows_alone_does_not_name_the_end_of_the_log_before_the_next(
    log, reader, prev, follows
):
    other = Reader(log)
    for each in (reader, other):
        each.join()
    entry = log.write(b"0-5", cursors(0, 5))
    for each in (reader, other):
        each.follow(entry)
    reader.follower.deliver_local(Outgoing(b"5-8", b"s", cursors(5, 8)))
    outgoing = Outgoing(b"next", b"s", cursors(prev, 10))
    message = reader.follower.message(MessageId(7, 1), outgoing, 0)
    assert message.before == (log.before if follows else NO_MESSAGE)

    def fill(request: SourceRead) -> None:
        assert request.until == prev
        other.follower.deliver_local(Outgoing(b"filled", b"s", cursors(5, 8)))

    other.event(log.add(log.next_id(), message))
    other.catch_up(fill)
    assert other.payloads == [b"0-5", *([] if follows else [b"filled"]), b"next"]
    assert other.resets == []


def test_rows_of_the_time_without_the_engine_are_not_received_again(log, reader):
    reader.follow(log.write(b"0-5", cursors(0, 5)))
    reader.follower.deliver_local(Outgoing(b"5-8", b"s", cursors(5, 8)))
    log.write(b"5-7", cursors(5, 7))
    log.write(b"7-9", cursors(7, 9))
    reader.follower.rejoin(log.last)
    reader.catch_up()
    assert [(m.payload, m.after) for m in reader.received] == [
        (b"0-5", None), (b"5-8", None), (b"7-9", 8),
    ]  # fmt: skip
    assert reader.resets == []


def test_without_cursors_a_return_is_a_reset_and_skips_what_others_received(log, reader):
    reader.follow(log.write(b"0"))
    reader.follower.deliver_local(Outgoing(b"local", b"s"))
    log.write(b"1")
    log.write(b"2")
    reader.follower.rejoin(log.last)
    reader.catch_up()
    reader.follow(log.write(b"3"))
    assert reader.payloads == [b"0", b"local", b"3"] and len(reader.resets) == 1


# -- schemas, and entries that cannot be read --------------------------------------------------


def test_a_changed_schema_is_in_the_entry(log, reader):
    reader.follow(log.write(b"0", schema=b"s"), log.write(b"1", schema=b"t"))
    reader.follow(log.write(b"2", schema=b"s"), log.write(b"3", schema=None))
    assert [m.schema for m in reader.received] == [b"s", b"t", b"s", None]


def test_messages_whose_schema_nobody_has_are_a_reset(log, reader):
    log.schema, log.stored_schema = b"gone", None
    entry = log.write(b"0", schema=b"gone")
    log.stored_schema = None
    reader.follow(entry, log.write(b"1", schema=b"s"))
    assert reader.payloads == [b"1"] and len(reader.resets) == 1


@pytest.mark.parametrize("payload", [b"", b"x", b"\x93\x05\x01\x02"])
def test_an_entry_that_cannot_be_read_is_a_reset(log, reader, payload):
    bad = Entry(log.next_id(), log.last, payload)
    log.entries.append(bad)
    reader.follow(bad, log.write(b"1"))
    assert reader.payloads == [b"1"] and len(reader.resets) == 1
    assert reader.follower.unreadable == 1


def test_the_source_does_not_go_on_before_a_last_entry_that_cannot_be_read(log, reader):
    reader.follow(log.write(b"0"))
    bad = Entry(log.next_id(), log.last, b"damaged")
    log.entries.append(bad)
    reader.follow(bad)
    assert reader.follower.last is not None and reader.follower.last.payload == b"damaged"
    reader.follow(log.write(b"2", schema=b"s"))
    assert reader.follower.last.payload == b"2"


def test_the_end_of_the_source_is_known(log, reader):
    reader.follow(log.write(b"0"), log.write(b"", schema=b"s"))
    assert reader.follower.ended and reader.payloads == [b"0"]


@pytest.mark.parametrize("seed", range(50))
def test_any_order_of_any_events_is_received_once_and_in_order(seed):
    chance = random.Random(seed)
    log = Log()
    log.term(100)
    reader = Reader(log)
    reader.join()
    events: list[Entry] = []
    count = 0
    for _ in range(200):
        action = chance.random()
        if action < 0.6:
            entry = log.write(b"%d" % count)
            count += 1
            events.append(entry)
        elif action < 0.65:
            events.append(log.term(log.last.term + chance.randint(1, 3)))
        elif action < 0.7 and len(log.entries) > 5:
            gone = log.lose(chance.randint(1, 3))
            events.append(log.term(max(log.last.term + 1, gone[-1].id.term + chance.randint(0, 2))))
            contents = [(entry, CODEC.decode(entry.payload)) for entry in gone]
            events += [log.again(e) for e, c in contents if isinstance(c, ChannelMessage)]
        elif events:
            if chance.random() < 0.2:
                events.pop(chance.randrange(len(events)))  # missed
            elif chance.random() < 0.2:
                reader.follow(chance.choice(log.entries))  # repeated
            else:
                reader.event(events.pop(0))
                if chance.random() < 0.7:
                    reader.catch_up()
    reader.follower.compare_end(log.last, reader.follower.position)
    reader.catch_up()
    reader.follow(log.write(b"%d" % count))
    assert reader.payloads == [b"%d" % n for n in range(count + 1)]
    assert reader.resets == []
