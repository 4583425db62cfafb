"""Which nodes have crashed: one rule at a time, without time and engine."""

import pytest

from aiostream_ds._cluster.engine import Watched
from aiostream_ds._cluster.other_nodes import CrashDetection, OtherNodes
from tests.cluster.model_engine import ModelEngine, ModelServer

LEASE = 1.2  # overdue after 0.44 s, crashed after 0.24 s of silence


class Detection(CrashDetection):
    """With the answers of a server over one connection."""

    def __init__(self) -> None:
        super().__init__(LEASE)
        self.connection = 1

    def ask(self, now: float, is_watched: bool, age: float = 0.5) -> bool:
        if "a" not in self.questions({"a": age, "b": 0.1}, {"a"}):
            return False
        return self.has_crashed("a", Watched(self.connection, is_watched), now)


@pytest.fixture
def detection() -> Detection:
    made = Detection()
    assert not made.ask(0.0, is_watched=True, age=0.1)
    return made


def test_a_node_has_crashed_if_it_has_missed_a_renewal_and_is_silent_for_a_fifth_of_a_lease(
    detection,
):
    assert not detection.ask(1.0, is_watched=False)
    assert detection.suspects
    assert not detection.ask(1.2, is_watched=False)
    assert detection.ask(1.3, is_watched=False)


def test_a_node_that_has_renewed_its_lease_is_not_asked_for_once_it_was_seen(detection):
    assert detection.questions({"a": 0.19}, {"a"}) == []
    assert detection.questions({"a": 0.21}, {"a"}) == ["a"]


def test_one_of_many_nodes_is_asked_for_when_it_has_missed_a_renewal(detection):
    owners = {"a", "b", "c", "d", "e"}
    assert detection.questions({"a": 0.43}, owners) == []
    assert detection.questions({"a": 0.45}, owners) == ["a"]


def test_silence_before_a_renewal_is_missed_counts_once_it_is(detection):
    assert not detection.ask(1.0, is_watched=False, age=0.21)
    assert detection.known_in(1.0) == pytest.approx(0.24)
    assert not detection.ask(1.1, is_watched=False, age=0.31)
    assert not detection.ask(1.24, is_watched=False, age=0.4)
    assert detection.known_in(1.24) == pytest.approx(0.04)
    assert detection.ask(1.29, is_watched=False, age=0.45)


def test_a_node_that_renews_its_lease_meanwhile_is_silent_from_then_on(detection):
    assert not detection.ask(1.0, is_watched=False)
    assert not detection.ask(1.2, is_watched=False, age=0.1)
    assert not detection.suspects
    assert not detection.ask(1.6, is_watched=False)


def test_a_node_that_is_seen_meanwhile_has_not_crashed(detection):
    assert not detection.ask(1.0, is_watched=False)
    assert not detection.ask(1.2, is_watched=True)
    assert not detection.ask(1.6, is_watched=False)
    assert detection.ask(1.9, is_watched=False)


def test_a_node_that_was_never_seen_has_not_crashed():
    detection = Detection()
    for second in range(10):
        assert not detection.ask(second, is_watched=False)
    assert not detection.suspects


def test_over_another_connection_a_node_has_to_be_seen_first(detection):
    assert not detection.ask(1.0, is_watched=False)
    detection.connection = 2
    for second in range(2, 10):
        assert not detection.ask(second, is_watched=False)
    assert not detection.ask(10, is_watched=True)
    assert not detection.ask(11, is_watched=False)
    assert detection.ask(12, is_watched=False)


def test_after_a_connection_was_lost_all_nodes_are_asked_for_again(detection):
    assert detection.questions({"a": 0.1}, {"a"}) == []
    detection.forget()
    detection.connection = 2
    assert not detection.ask(1.0, is_watched=True, age=0.1)
    assert not detection.ask(2.0, is_watched=False)
    assert detection.ask(2.3, is_watched=False)


def test_silence_that_began_over_an_earlier_connection_does_not_count(detection):
    assert not detection.ask(1.0, is_watched=False)
    detection.connection = 2
    assert not detection.ask(1.1, is_watched=True)
    assert not detection.ask(1.5, is_watched=False)


def test_nodes_that_own_nothing_of_interest_are_not_asked_for(detection):
    assert detection.questions({"a": 0.5, "b": 0.5}, set()) == []
    assert detection.questions({"a": 0.5, "b": 0.5}, {"gone"}) == []


def test_a_slow_engine_is_asked_for_the_silent_nodes_first_and_for_not_too_many(detection):
    nodes = {f"n{number:02}": 0.5 for number in range(100)} | {"a": 0.5}
    assert not detection.ask(1.0, is_watched=False)
    questions = detection.questions(nodes, sorted(nodes, reverse=True))
    assert questions[0] == "a" and len(questions) == len(set(questions)) == 16


def test_nodes_that_cannot_be_seen_are_asked_for_more_and_more_seldom():
    detection = Detection()
    asked = [poll for poll in range(320) if detection.questions({"a": 0.1}, {"a"})]
    assert asked[:4] == [0, 1, 3, 7] and 320 / 32 < len(asked) < 320 / 16
    assert detection.questions({"a": 0.5}, {"a"}) == ["a"]
    detection.forget()
    assert detection.questions({"a": 0.1}, {"a"}) == ["a"]


def test_all_nodes_are_asked_for_if_some_cannot_be_seen():
    detection = Detection()
    ages = {f"n{number:02}": 0.1 for number in range(40)}
    assert len({node for _ in range(3) for node in detection.questions(ages, list(ages))}) == 40


def test_a_silent_node_is_asked_for_again_when_it_is_known_whether_it_has_crashed(detection):
    assert not detection.ask(1.0, is_watched=False)
    assert detection.known_in(1.1) == pytest.approx(0.14)
    assert not detection.ask(1.2, is_watched=False)
    assert detection.known_in(1.2) == pytest.approx(0.04)
    assert detection.ask(1.25, is_watched=False)


@pytest.mark.parametrize("count", range(1, 8))
def test_one_of_few_nodes_is_the_first_one_for_a_channel_and_of_many_all_are(count):
    names = [f"n{number}" for number in range(count)]
    nodes = [OtherNodes(ModelEngine(ModelServer()), name, LEASE, lambda: ()) for name in names]
    for each in nodes:
        each.alive = frozenset(names)
    for channel in range(100):
        first = [each.is_first(f"c{channel}") for each in nodes]
        assert sum(first) == (1 if count <= 5 else count)
    assert all(any(each.is_first(f"c{channel}") for channel in range(100)) for each in nodes)
