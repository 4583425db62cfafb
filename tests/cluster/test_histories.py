"""Random histories of a cluster keep its invariants: see `simulation`.

AIOSTREAM_DS_HISTORIES=10000 plays so many; AIOSTREAM_DS_FIRST_HISTORY is the first seed.
"""

import os

import pytest

from tests.cluster.simulation import History, Scenario

SCENARIOS = {
    "numbered": Scenario(),
    "missed notifications": Scenario(missed=0.2, seconds=15),
    "short log": Scenario(entries=5, nodes=2, channels=1),
    "from now": Scenario(is_numbered=False),
    "newest message": Scenario(tail=1, entries=100),
    "short": Scenario(nodes=2, channels=1, seconds=7),
    "many channels": Scenario(nodes=4, channels_of_node=500),
    "closed connections": Scenario(
        actions={
            "view": 5,
            "leave": 2,
            "crash": 4,
            "stop": 2,
            "reset": 6,
            "disconnect": 2,
            "slow": 2,
            "outage": 1,
            "restart": 1,
            "lose": 1,
        }
    ),
}
HISTORIES = int(os.environ.get("AIOSTREAM_DS_HISTORIES", "0"))
FIRST = int(os.environ.get("AIOSTREAM_DS_FIRST_HISTORY", "1000"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_history_keeps_the_invariants(name):
    history = History(1, SCENARIOS[name]).run()
    assert history.received > 20


@pytest.mark.slow
def test_an_owner_that_has_lost_the_engine_does_not_deliver_what_it_reads_of_the_log():
    History(5046, SCENARIOS["from now"]).run()


@pytest.mark.slow
def test_a_node_without_viewers_gives_a_channel_up_that_the_engine_has_as_its_own_again():
    History(20012, SCENARIOS["missed notifications"]).run()


def test_a_channel_whose_owners_die_one_after_the_other_has_an_owner_after_the_last_lease():
    History(800598, SCENARIOS["from now"]).run()


def test_rows_that_were_received_before_their_schema_was_lost_are_not_missing():
    assert History(56, SCENARIOS["short log"]).run().resets == 0


def test_an_owner_that_has_received_rows_of_the_next_one_reads_on_after_them_without_the_engine():
    History(7000400, SCENARIOS["numbered"]).run()


def test_a_follower_of_a_channel_with_rows_asks_for_its_owner_when_it_has_connected_again():
    History(9100078, SCENARIOS["closed connections"]).run()


def test_a_node_takes_a_channel_that_is_given_up_between_its_question_and_the_answer():
    History(3110598, SCENARIOS["newest message"]).run()


def test_viewers_of_a_stream_without_a_cursor_see_at_most_once_that_the_engine_was_away():
    # rows of its own upstream are counted otherwise than those of the log, to which it returns
    history = History(5000043, SCENARIOS["from now"]).run()
    assert history.degradations == 1 >= history.resets


@pytest.mark.slow
@pytest.mark.timeout(60 + HISTORIES * 2)
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_histories_keep_the_invariants(name):
    for seed in range(FIRST, FIRST + (HISTORIES or 15)):
        History(seed, SCENARIOS[name]).run()
