"""Proof that the tests have eyes: each planted fault must be caught by the machine or by a test.

A fault is one replaced piece of source. "machine" means that the state machine finds it within
its histories; otherwise the named test of tests/unit must fail.
"""

import asyncio
import inspect
import logging

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.channels import test_registry
from tests.channels.parts import Parts, planted
from tests.channels.registry_machine import RegistryMachine
from tests.streams import test_ordering_producer as test_sorting_pump
from tests.streams import test_producer as test_pump

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
HISTORIES = 2_000

FAULTS = {
    # name: (module, what stands there, what stands there instead, who must see it)
    "leave does not close": (
        "channel",
        "            else:\n                self._close()\n",
        "",
        "machine",
    ),
    "linger forgets its timer": (
        "channel",
        "            self._stop_timer()\n            self.state = State.RUNNING",
        "            self.state = State.RUNNING",
        "test_lingering",
    ),
    "no second cancellation": (
        "channel",
        "        self._timer = None\n        self._cancel()\n",
        "        self._timer = None\n        self._cancels += 1\n",
        "machine",
    ),
    "a stuck stream is not reported": (
        "channel",
        "            self._owner._give_up_waiting(self)\n",
        "",
        "test_a_stream_that_never_ends",
    ),
    "a task cancelled before its first step is forgotten": (
        "channel",
        "        if self.state is State.CLOSED:\n            return\n",
        "        return\n",
        "machine",
    ),
    "a stream ends only in the callback": (
        "channel",
        "            self._finish(error)\n        finally:\n            del error  #",
        "            self._end_readers(error)\n        finally:\n            del error  #",
        "test_the_turn_in_which",
    ),
    "an error ends as a return": (
        "channel",
        "(Exception, SystemExit) as caught:  # one stream never ends the plugin\n"
        "            error = caught",
        "(Exception, SystemExit):\n            error = None",
        "machine",
    ),
    "sys.exit ends the plugin": (
        "channel",
        "except (Exception, SystemExit) as caught",
        "except Exception as caught",
        "machine",
    ),
    "the readers' context leaks": (
        "channel",
        ", context=contextvars.Context()",
        "",
        "test_a_stream_knows_no_context",
    ),
    "an error keeps its frames": (
        "channel",
        "            del error  # error → traceback → this frame → error would be a cycle",
        "            pass",
        "test_nothing_of_an_ended_stream",
    ),
    "a bad row does not fail the channel": (
        "channel",
        "            self._end_readers(error)\n            self._close()\n",
        "",
        "test_a_bad_row_ends_the_readers",
    ),
    "emit goes round the living readers": (
        "channel",
        "for reader in tuple(self._subscriptions):  # a",
        "for reader in self._subscriptions:  # a",
        "machine",
    ),
    "room is not made when a reader leaves": (
        "channel",
        "        self._owner.observer.on_leave(self.key)\n        self._make_room()\n",
        "        self._owner.observer.on_leave(self.key)\n",
        "test_a_full_reader_that_leaves",
    ),
    "room is not made when a reader fetches": (
        "channel",
        "        if self._room is not None:\n            self._make_room()\n",
        "",
        "test_block_holds_the_author",
    ),
    "a dry mailbox does not ask": (
        "channel",
        "        if self.on_hungry is not None:\n            self._ask()\n",
        "",
        "test_rows_are_merged",
    ),
    "join does not flush first": (
        "registry",
        "            channel._ask()  # rows",
        "            pass  # rows",
        "test_rows_held_back",
    ),
    "join does not look again": (
        "registry",
        "            channel = self._open.get(key)  # one of",
        "            pass  # ",
        "test_a_join_whose_flush",
    ),
    "a successor does not wait": (
        "registry",
        "        if former is None:\n            channel._start()",
        "        if True:\n            channel._start()",
        "machine",
    ),
    "a closing stream is forgotten": (
        "registry",
        "        self._closing[channel.key] = channel\n",
        "",
        "machine",
    ),
    "a successor is never started": (
        "registry",
        "                else:\n                    waiting._start()\n",
        "",
        "machine",
    ),
    "older settings win": (
        "registry",
        "channel.generation < generation:\n            self._end(channel, S",
        "channel.generation != generation:\n            self._end(channel, S",
        "test_newer_settings_end",
    ),
    "newer settings do not end the older stream": (
        "registry",
        "        if channel is not None and channel.generation < generation:\n",
        "        if False:\n",
        "machine",
    ),
    "older settings start a stream": (
        "registry",
        "        if generation < newest:\n",
        "        if False:\n",
        "machine",
    ),
    "a waiting stream of older settings starts": (
        "registry",
        "if waiting.generation < self._newest.get(key.instance, waiting.generation):",
        "if False:",
        "test_a_waiting_stream_of_older",
    ),
    "rows before a settings change are lost": (
        "registry",
        "        channel._ask()\n        channel._end_readers(error)",
        "        channel._end_readers(error)",
        "test_rows_before_newer_settings",
    ),
    "supersede spares them all": (
        "registry",
        "            if channel.generation < generation:\n",
        "            if False:\n",
        "machine",
    ),
    "a stuck key can be joined": (
        "registry",
        "former is not None and former.stuck",
        "False",
        "test_a_stream_that_never_ends",
    ),
    "the end comes before what is queued": (
        "mailbox",
        "        while not self._queue:\n",
        "        while not self._queue or self._ended:\n",
        "machine",
    ),
    "the end wakes nobody": (
        "mailbox",
        "self._feed, self._ended, self._error = None, True, error\n        self._wake()",
        "self._feed, self._ended, self._error = None, True, error",
        "machine",
    ),
    "the schema is joined when it is queued": (
        "mailbox",
        "                current = schema\n                taken.append((schema, packet))",
        "                taken.append((schema, packet)) if self._schema is None else "
        "taken.append((None, packet))\n                current = schema",
        "machine",
    ),
    "dropping takes the newest": (
        "mailbox",
        "self._queue.popleft()",
        "self._queue.pop()",
        "machine",
    ),
    "a mailbox has no bound": (
        "mailbox",
        '        if older and (buffer.full == "latest" or self._over()):',
        "        if False:",
        "machine",
    ),
    "one batch counts as being behind": (
        "mailbox",
        '        if older and (buffer.full == "latest" or self._over()):',
        '        if self._over() or (older and buffer.full == "latest"):\n'
        "            older = len(queue) - 1",
        "test_many_packets_of_one_batch",
    ),
    "a reader that takes nothing holds up the author for ever": (
        "channel",
        "                reader._stall()\n",
        "                pass\n",
        "test_a_reader_that_takes_nothing",
    ),
    "who takes now and then is stalled all the same": (
        "mailbox",
        "        self._late_since = None\n        if feed is not None:\n"
        "            feed._drained()",
        "        if feed is not None:\n            feed._drained()",
        "test_a_reader_that_takes_now_and_then",
    ),
    "a drop is told to nobody": (
        "mailbox",
        "            self._feed._dropped(rows, count)\n",
        "            pass\n",
        "test_each_drop_is_told",
    ),
    "a drop of several packets counts as one": (
        "mailbox",
        "            rows += packet.rows\n            size += len(packet.data)\n"
        "        self._queued_rows -= rows",
        "            rows = packet.rows\n            size += len(packet.data)\n"
        "        self._queued_rows -= rows",
        "test_each_drop_is_told",
    ),
    "what the author says is not told": (
        "channel",
        "                self.statuses.says(status)\n",
        "                pass\n",
        "test_what_an_author_says",
    ),
    "rows do not end an outage": (
        "channel",
        "            self._statuses.rows_came()\n        self._give(packets",
        "            pass\n        self._give(packets",
        "test_what_an_author_says",
    ),
    "a slow reader stays in its channel": (
        "mailbox",
        "        if feed is not None:\n            feed._left(self)\n\n    def _discard",
        "\n    def _discard",
        "machine",
    ),
    "the batch is sent twice": (
        "pump",
        "        self._batch.clear()  # first",
        "        pass  # first",
        "machine",
    ),
    "rows before an error are lost": (
        "pump",
        "            self._end()\n            self._channel.on_hungry = None",
        "            self._channel.on_hungry = None",
        "machine",
    ),
    "a bad row takes its batch along": (
        "pump",
        "            packets, error = self._encode_singly(rows)",
        "            packets, error = [], self._encode_singly(rows)[1]",
        "machine",
    ),
    "the generator is not closed": (
        "pump",
        "        await rows.aclose()\n",
        "        pass\n",
        "machine",
    ),
    "the author's wait is not seen": (
        "pump",
        "        if self._batch and self._channel.hungry:",
        "        if False:",
        "machine",
    ),
    "a full reader is not seen": (
        "pump",
        "self._size if channel.flowing else 0",
        "self._size if channel.open else 0",
        "test_block_holds_the_author",
    ),
    "a closing channel does not stop the author": (
        "pump",
        "if not self._channel.open:\n                            return  #",
        "if False:\n                            return  #",
        "test_a_swallowed_cancellation",
    ),
    "an author who never waits starves the others": (
        "pump",
        "            await asyncio.sleep(0)  # nobody starves",
        "            pass  # nobody",
        "test_an_author_who_never_waits",
    ),
    "a timeout around a yield is taken for a cancellation": (
        "pump",
        "in_own_wait and self._channel.open",
        "False and self._channel.open",
        "test_a_timeout_that_strikes",
    ),
    "held rows are lost at the end": (
        "pump",
        "        self._batch += self._sorter.release(math.inf)\n        if self._timer",
        "        if self._timer",
        "test_held_rows_leave_at_the_end",
    ),
    "nobody watches how long rows are held": (
        "pump",
        "            self._channel.fail(error)\n        self._watch()\n",
        "            self._channel.fail(error)\n",
        "test_held_rows_leave_by_the_clock",
    ),
    "the clock of held rows rings only once": (
        "pump",
        "        self._timer = None\n        self._batch +=",
        "        self._batch +=",
        "test_the_clock_starts_again",
    ),
    "rows are sorted only when they leave": (
        "pump",
        "        self._sort()\n        self._offer()\n",
        "        self._offer()\n",
        "test_held_rows_leave_by_the_clock",
    ),
    "sorted rows pile up": (
        "pump",
        " or self._yields >= self._size",
        " or False",
        "test_rows_do_not_pile_up",
    ),
    "an order that cannot judge a row is ignored": (
        "pump",
        "            self._channel.fail(error)\n        self._watch()\n",
        "            pass\n        self._watch()\n",
        "test_a_row_that_the_order_cannot_judge",
    ),
    "a list counts as many yields": (
        "pump",
        "super()._measure(self._yields, seen,",
        "super()._measure(seen, seen,",
        "test_a_packet_grows_by_what_was_yielded",
    ),
}


def machine_of(parts: Parts) -> type[RegistryMachine]:
    return type("PlantedMachine", (RegistryMachine,), {"parts": parts})


def run_machine(parts: Parts) -> None:
    run_state_machine_as_test(
        machine_of(parts),
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )


def run_test(name: str, parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """Run each unit test whose name begins so, with these parts, within some virtual hours."""
    found = 0
    for module in (test_registry, test_pump, test_sorting_pump):
        for key, test in vars(module).items():
            if not key.startswith(name):
                continue
            found += 1
            wanted = inspect.signature(test).parameters
            given = {
                "parts": parts,
                "caplog": caplog,
                "scope": "asyncio.timeout",
                "ends": "returns",
            }
            loop = VirtualLoop()
            try:
                work = test(**{each: given[each] for each in wanted})
                loop.run_until_complete(asyncio.wait_for(work, 10_000))
            finally:
                loop.close()
    if not found:
        raise LookupError(f"no test begins with {name!r}")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_a_planted_fault_is_caught(fault, caplog, monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.05)
    part, old, new, witness = FAULTS[fault]
    parts = planted(part, old, new)
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(BaseException) as caught:
            if witness == "machine":
                run_machine(parts)
            else:
                run_test(witness, parts, caplog)
    finally:
        logging.disable(logging.NOTSET)
    assert not isinstance(caught.value, (LookupError, KeyboardInterrupt)), caught.value


def test_the_machine_finds_nothing_in_the_modules_as_they_are():
    run_machine(planted("pump", "The batch of one run", "The batch of a run"))


@pytest.mark.parametrize("witness", sorted({fault[3] for fault in FAULTS.values()} - {"machine"}))
def test_each_witness_passes_with_the_modules_as_they_are(witness, caplog):
    run_test(witness, planted("pump", "The batch of one run", "The batch of a run"), caplog)
