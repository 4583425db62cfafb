"""What is to be told of a channel at a moment: causes, their order, silence and drops."""

import pytest

from aiostream_ds._channels.policy import DROPS_SHOWN
from aiostream_ds._channels.status import Status, Statuses, partition, status_packet
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds.testing.virtual_loop import VirtualLoop

REFUSED = Status("error", "no such topic")
AWAY = Status("warning", "reconnecting (1)")
NOTE = Status("info", "night shift")


class Board:
    """The statuses of one channel, with what they tell it."""

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
        shown = self.statuses.shown
        return None if shown is None else shown.text


@pytest.fixture
def board():
    found = Board()
    yield found
    found.loop.close()


def test_the_most_severe_cause_is_shown_and_the_others_come_back(board):
    board.statuses.tell("author", NOTE)
    board.statuses.tell("reconnecting", AWAY)
    board.statuses.tell("refused", REFUSED)
    board.statuses.withdraw("refused")
    board.statuses.withdraw("reconnecting", "stale")
    board.statuses.withdraw("author")
    texts = ["night shift", "reconnecting (1)", "no such topic", "reconnecting (1)", "night shift"]
    assert board.changes == [*texts, None]


def test_the_same_again_is_no_change(board):
    for _ in range(3):
        board.statuses.tell("author", NOTE)
    board.statuses.withdraw("stale")
    assert len(board.changes) == 1


def test_rows_end_an_outage_but_nothing_that_the_author_says(board):
    board.statuses.tell("author", NOTE)
    board.statuses.tell("reconnecting", AWAY)
    board.statuses.rows_came()
    assert board.text == "night shift"


def test_what_the_author_says_ends_an_outage_too_and_a_plain_one_is_live(board):
    board.statuses.tell("reconnecting", AWAY)
    board.statuses.says(NOTE)
    assert board.statuses.causes == ("author",)
    board.statuses.says(Status())
    assert board.text is None


def test_an_upstream_that_is_silent_after_a_retry_counts_as_back_after_a_while(board):
    board.statuses.tell("reconnecting", AWAY)
    board.statuses.settle_after(30)
    board.loop.advance(29)
    assert board.text == "reconnecting (1)"
    board.loop.advance(1)
    assert board.text is None
    board.statuses.tell("reconnecting", AWAY)
    board.statuses.settle_after(30)
    board.statuses.unsettle()
    board.loop.advance(60)
    assert board.text == "reconnecting (1)"


def test_silence_is_stale_from_the_first_second_on_and_says_for_how_long():
    board = Board(stale=10)
    board.loop.advance(9)
    assert board.text is None
    board.loop.advance(33)
    assert board.text == "stale 42 s" and board.changes == ["stale 10 s"]
    board.statuses.rows_came()
    assert board.text is None
    for _ in range(20):  # rows each second: never stale
        board.loop.advance(1)
        board.statuses.rows_came()
    assert board.changes == ["stale 10 s", None]
    board.loop.advance(10)
    assert board.text == "stale 10 s"
    board.loop.close()


def test_rows_that_tell_the_status_itself_are_no_rows():
    board = Board(stale=10)
    board.loop.advance(10)
    board.statuses.is_quiet = True
    board.statuses.rows_came()
    assert board.text == "stale 10 s"
    board.loop.close()


def test_an_episode_of_drops_is_told_at_its_beginning_and_summed_at_its_end(board):
    assert board.statuses.dropped(100, 2)
    for _ in range(3):
        board.loop.advance(DROPS_SHOWN - 1)
        assert not board.statuses.dropped(10, 1)
    assert board.text == "dropped 130" and board.episodes == []
    board.loop.advance(DROPS_SHOWN)
    assert board.text is None and board.episodes == [(130, 5)]
    assert board.statuses.dropped(1, 1), "another episode"
    assert board.text == "dropped 1"


def test_an_episode_ends_with_its_stream(board):
    board.statuses.dropped(7, 1)
    board.statuses.close()
    board.loop.advance(100)
    assert board.episodes == [(7, 1)]


def test_packets_are_sifted():
    schema = Schema(b"{}", "s")
    rows, mark = Packet(schema, b"[1]", 1), Packet(schema, b"", 0)
    said, filled, size, last = partition([rows, status_packet(NOTE), mark, status_packet(AWAY)])
    assert (said, filled, size, last) == ([NOTE, AWAY], (rows,), 3, mark)


@pytest.mark.parametrize("wrong", [{"severity": "fatal"}, {"text": None}])
def test_what_is_no_status_is_refused(wrong):
    with pytest.raises(ValueError, match=r"Status\.\w+ is .*; allowed"):
        Status(**wrong)
