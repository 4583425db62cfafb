"""The statuses of a channel: causes, their order, silence and drops."""

import pytest

from aiostream_ds._channels.policy import LAG_END
from aiostream_ds._channels.status import Status, Statuses, partition, status_packet
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds.testing.virtual_loop import VirtualLoop

REFUSED = Status("error", "no such topic")
AWAY = Status("warning", "reconnecting (1)")
NOTE = Status("info", "night shift")


class Recorder:
    """The statuses of one channel, and the calls that the channel gets."""

    def __init__(self, stale=0.0):
        self.loop = VirtualLoop()
        self.changes, self.episodes = [], []
        self.statuses = Statuses(self.loop, self._changed, self._caught_up, stale)

    def _changed(self):
        self.changes.append(self.text)

    def _caught_up(self, rows, packets):
        self.episodes.append((rows, packets))

    @property
    def text(self):
        shown = self.statuses.current
        return None if shown is None else shown.text


@pytest.fixture
def recorder():
    found = Recorder()
    yield found
    found.loop.close()


def test_the_most_severe_cause_is_shown_and_the_others_come_back(recorder):
    recorder.statuses.set("author", NOTE)
    recorder.statuses.set("reconnecting", AWAY)
    recorder.statuses.set("refused", REFUSED)
    recorder.statuses.clear("refused")
    recorder.statuses.clear("reconnecting", "stale")
    recorder.statuses.clear("author")
    texts = ["night shift", "reconnecting (1)", "no such topic", "reconnecting (1)", "night shift"]
    assert recorder.changes == [*texts, None]


def test_the_same_status_again_changes_nothing(recorder):
    for _ in range(3):
        recorder.statuses.set("author", NOTE)
    recorder.statuses.clear("stale")
    assert len(recorder.changes) == 1


def test_rows_end_an_outage_but_not_the_status_of_the_author(recorder):
    recorder.statuses.set("author", NOTE)
    recorder.statuses.set("reconnecting", AWAY)
    recorder.statuses.rows_emitted()
    assert recorder.text == "night shift"


def test_a_status_of_the_author_ends_an_outage_and_an_empty_one_means_healthy(recorder):
    recorder.statuses.set("reconnecting", AWAY)
    recorder.statuses.set_by_author(NOTE)
    assert recorder.statuses.causes == ("author",)
    recorder.statuses.set_by_author(Status())
    assert recorder.text is None


def test_an_outage_ends_after_a_retry_without_rows_and_errors(recorder):
    recorder.statuses.set("reconnecting", AWAY)
    recorder.statuses.recover_after(30)
    recorder.loop.advance(29)
    assert recorder.text == "reconnecting (1)"
    recorder.loop.advance(1)
    assert recorder.text is None
    recorder.statuses.set("reconnecting", AWAY)
    recorder.statuses.recover_after(30)
    recorder.statuses.cancel_recovery()
    recorder.loop.advance(60)
    assert recorder.text == "reconnecting (1)"


def test_a_stale_status_has_the_seconds_since_the_last_row():
    recorder = Recorder(stale=10)
    recorder.loop.advance(9)
    assert recorder.text is None
    recorder.loop.advance(33)
    assert recorder.text == "stale 42 s" and recorder.changes == ["stale 10 s"]
    recorder.statuses.rows_emitted()
    assert recorder.text is None
    for _ in range(20):  # rows each second: never stale
        recorder.loop.advance(1)
        recorder.statuses.rows_emitted()
    assert recorder.changes == ["stale 10 s", None]
    recorder.loop.advance(10)
    assert recorder.text == "stale 10 s"
    recorder.loop.close()


def test_rows_that_only_carry_a_status_do_not_end_silence():
    recorder = Recorder(stale=10)
    recorder.loop.advance(10)
    recorder.statuses.ignores_next = True
    recorder.statuses.rows_emitted()
    assert recorder.text == "stale 10 s"
    recorder.loop.close()


def test_an_episode_of_drops_begins_with_the_first_drop_and_ends_with_the_sums(recorder):
    assert recorder.statuses.rows_dropped(100, 2)
    for _ in range(3):
        recorder.loop.advance(LAG_END - 1)
        assert not recorder.statuses.rows_dropped(10, 1)
    assert recorder.text == "dropped 130" and recorder.episodes == []
    recorder.loop.advance(LAG_END)
    assert recorder.text is None and recorder.episodes == [(130, 5)]
    assert recorder.statuses.rows_dropped(1, 1), "another episode"
    assert recorder.text == "dropped 1"


def test_an_episode_ends_with_its_stream(recorder):
    recorder.statuses.rows_dropped(7, 1)
    recorder.statuses.close()
    recorder.loop.advance(100)
    assert recorder.episodes == [(7, 1)]


def test_partition_separates_statuses_from_packets_with_rows():
    schema = Schema(b"{}", "s")
    rows, empty = Packet(schema, b"[1]", 1), Packet(schema, b"", 0)
    packets = [rows, status_packet(NOTE), empty, status_packet(AWAY)]
    statuses, with_rows, size, last = partition(packets)
    assert (statuses, with_rows, size, last) == ([NOTE, AWAY], (rows,), 3, empty)


@pytest.mark.parametrize("wrong", [{"severity": "fatal"}, {"text": None}])
def test_a_bad_field_of_a_status_is_an_error(wrong):
    with pytest.raises(ValueError, match=r"Status\.\w+ must be .*, got "):
        Status(**wrong)
