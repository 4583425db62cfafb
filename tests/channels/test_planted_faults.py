"""Each planted fault must be caught by the state machine or by a test.

A fault is a replaced expression or statement of one function, found in its syntax tree.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.channels import test_memory as memory
from tests.channels import test_registry as registry
from tests.channels import test_subscription as subscriptions
from tests.channels.parts import Fault, Parts, faulty_tree, planted
from tests.channels.registry_machine import RegistryMachine
from tests.histories import play
from tests.streams import test_ordering_producer as ordering
from tests.streams import test_producer as producer

HISTORIES = 300

Witness = Callable[..., Any]
"""The test that has to fail."""


def fault(function: str, old: str, new: str, witness: Witness) -> tuple[Fault, Witness]:
    return Fault(function, ((old, new),)), witness


FAULTS = {
    "leave does not close": fault(
        "channel:Channel.subscription_left",
        "self.close()",
        "pass",
        registry.test_the_first_join_starts_a_stream_and_the_last_leave_runs_its_finally_to_the_end,
    ),
    "a join does not stop the timer of lingering": fault(
        "channel:Channel.subscribe",
        "self.stop_timer()",
        "pass",
        registry.test_lingering_keeps_the_stream_for_the_next_subscriber,
    ),
    "no second cancellation": fault(
        "channel:Channel._cancel_again",
        "self._cancel()",
        "self._cancellations += 1",
        registry.test_a_stream_that_never_ends_is_stuck_and_never_runs_twice,
    ),
    "a stuck stream is not reported": fault(
        "channel:Channel._cancel_again",
        "self._owner.channel_stuck(self)",
        "pass",
        registry.test_a_stream_that_never_ends_is_stuck_and_never_runs_twice,
    ),
    "a task cancelled before its first step is forgotten": fault(
        "channel:Channel._task_done",
        "self.state is State.CLOSED",
        "True",
        registry.test_leaving_before_the_first_step_never_runs_the_author_and_frees_the_key,
    ),
    "a stream is closed only in the callback of its task": fault(
        "channel:Channel._drive",
        "self.finish(error)",
        "self.end_subscriptions(error)",
        registry.test_a_join_in_the_iteration_in_which_a_stream_ends_starts_another_one,
    ),
    "an error ends the stream like a return": fault(
        "channel:Channel._drive",
        "contained(caught, requested=self.state is State.CLOSING)",
        "None",
        registry.test_an_error_reaches_every_subscriber_after_the_rows_before_it,
    ),
    "sys.exit ends the plugin": fault(
        "channel:Channel._drive",
        "BaseException",
        "Exception",
        registry.test_sys_exit_in_a_stream_is_an_error_of_that_stream,
    ),
    "the subscriber's context leaks": fault(
        "channel:Channel.start",
        "contextvars.Context()",
        "None",
        registry.test_a_stream_does_not_run_in_the_context_of_its_first_subscriber,
    ),
    "an error keeps its frames": fault(
        "channel:Channel._drive",
        "del error",
        "pass",
        registry.test_nothing_of_an_ended_stream_stays_in_memory,
    ),
    "a bad row does not fail the channel": fault(
        "channel:Channel.fail",
        "self.end_subscriptions(failure)\nself.close()",
        "pass",
        registry.test_a_bad_row_ends_the_subscriptions_at_once_even_if_finally_waits,
    ),
    "drain does not end when a subscriber leaves": fault(
        "channel:Channel.subscription_left",
        "self._wake_drain()",
        "pass",
        registry.test_a_full_subscription_that_is_left_does_not_block_the_author,
    ),
    "drain does not end when a subscriber receives": fault(
        "channel:Channel.subscription_drained",
        "self._wake_drain()",
        "pass",
        registry.test_block_pauses_the_author_while_another_subscriber_has_demand,
    ),
    "an emptied queue does not request rows": fault(
        "channel:Channel.subscription_drained",
        "self.request_rows()",
        "pass",
        producer.test_rows_are_merged_while_no_subscriber_has_demand,
    ),
    "join does not request rows first": fault(
        "registry:ChannelRegistry.join",
        "channel.request_rows()",
        "pass",
        registry.test_rows_held_back_for_a_slow_subscriber_are_emitted_before_a_join,
    ),
    "join does not look the channel up again": fault(
        "registry:ChannelRegistry.join",
        "channel.request_rows()\nchannel = self._open.get(key)",
        "channel.request_rows()",
        registry.test_a_join_whose_flush_ends_the_channel_waits_for_the_next_stream,
    ),
    "a successor does not wait": fault(
        "registry:ChannelRegistry.join",
        "previous is None",
        "True",
        registry.test_a_third_join_still_waits_for_the_first_stream,
    ),
    "a closing stream is forgotten": fault(
        "registry:ChannelRegistry.channel_closing",
        "self._closing[channel.key] = channel",
        "pass",
        registry.test_a_third_join_still_waits_for_the_first_stream,
    ),
    "a successor is never started": fault(
        "registry:ChannelRegistry.channel_closed",
        "successor.start()",
        "pass",
        registry.test_a_third_join_still_waits_for_the_first_stream,
    ),
    "older settings win": fault(
        "registry:ChannelRegistry.join",
        "channel.generation < generation",
        "channel.generation != generation",
        registry.test_newer_settings_end_the_older_stream_first,
    ),
    "newer settings do not end the older stream": fault(
        "registry:ChannelRegistry.join",
        "channel is not None and channel.generation < generation",
        "False",
        registry.test_newer_settings_end_the_older_stream_first,
    ),
    "older settings start a stream": fault(
        "registry:ChannelRegistry.join",
        "generation < newest",
        "False",
        registry.test_older_settings_never_start_a_stream,
    ),
    "a waiting stream of older settings starts": fault(
        "registry:ChannelRegistry.channel_closed",
        "successor.generation < self._generations.get(key.instance, successor.generation)",
        "False",
        registry.test_a_waiting_stream_of_older_settings_is_not_started,
    ),
    "rows before a settings change are lost": fault(
        "registry:ChannelRegistry._end",
        "channel.request_rows()",
        "pass",
        registry.test_rows_before_newer_settings_are_not_lost,
    ),
    "supersede ends no stream": fault(
        "registry:ChannelRegistry.supersede",
        "channel.generation < generation",
        "False",
        registry.test_supersede_ends_the_older_streams_of_one_instance,
    ),
    "a stuck key can be joined": fault(
        "registry:ChannelRegistry.join",
        "previous is not None and previous.stuck",
        "False",
        registry.test_a_stream_that_never_ends_is_stuck_and_never_runs_twice,
    ),
    "the end comes before what is queued": fault(
        "subscription:Subscription.wait",
        "not self.queue",
        "not self.queue or self._ended",
        registry.test_an_error_reaches_every_subscriber_after_the_rows_before_it,
    ),
    "the end does not wake the subscriber": fault(
        "subscription:Subscription.end",
        "self.wake()",
        "pass",
        registry.test_a_bad_row_ends_an_author_who_catches_errors,
    ),
    "the schema is joined when it is queued": fault(
        "subscription:Subscription.receive_nowait",
        "received, self._schema = _with_schemas(queue, current)",
        """received, self._schema = _with_schemas(queue, current)
received = [(schema if current is None else None, packet) for schema, packet in received]""",
        subscriptions.test_a_packet_has_its_schema_when_the_last_sent_one_differs,
    ),
    "the newest packets are dropped": fault(
        "subscription:Subscription._discard",
        "packets.popleft()",
        "packets.pop()",
        memory.test_latest_keeps_the_newest_packet_without_memory,
    ),
    "a queue has no bound": fault(
        "subscription:Subscription.put",
        'older and (buffer.full == "latest" or self._is_over_bounds())',
        "False",
        registry.test_each_drop_is_reported_with_exact_sums,
    ),
    "one large batch overflows a queue": (
        Fault(
            "subscription:Subscription.put",
            (
                (
                    'older and (buffer.full == "latest" or self._is_over_bounds())',
                    'self._is_over_bounds() or (older and buffer.full == "latest")',
                ),
                ("self._handle_overflow(older)", "self._handle_overflow(len(self.queue) - 1)"),
            ),
        ),
        producer.test_all_packets_of_one_batch_reach_a_subscriber_that_keeps_up,
    ),
    "a stalled subscription blocks the author forever": fault(
        "channel:Channel.drain",
        "stalls_at",
        "stalls_at + 1_000_000",
        registry.test_a_stalled_subscription_is_ended_and_the_author_continues,
    ),
    "a subscriber that receives now and then is stalled": fault(
        "subscription:Subscription.put",
        "not older",
        "not self.waiting_since",
        registry.test_a_subscriber_that_receives_now_and_then_is_not_stalled,
    ),
    "a drop is not reported": fault(
        "subscription:Subscription._drop",
        "self._channel.rows_dropped(rows, count)",
        "pass",
        registry.test_each_drop_is_reported_with_exact_sums,
    ),
    "a drop of several packets counts as one": fault(
        "subscription:Subscription._discard",
        "rows += packet.rows",
        "rows = packet.rows",
        registry.test_each_drop_is_reported_with_exact_sums,
    ),
    "the status of the author is not shown": fault(
        "channel:Channel._emit_several",
        "self.statuses.set_by_author(status)",
        "pass",
        registry.test_subscribers_of_the_exact_channel_see_each_status_until_it_ends,
    ),
    "rows do not end an outage": fault(
        "channel:Channel.emit",
        "self._statuses.rows_emitted()",
        "pass",
        registry.test_subscribers_of_the_exact_channel_see_each_status_until_it_ends,
    ),
    "a status is sent within emit": fault(
        "channel:Channel._status_changed",
        "self._is_emitting",
        "False",
        registry.test_a_status_row_drops_no_rows_of_a_subscriber_that_keeps_up,
    ),
    "a status is sent at the end of emit": fault(
        "channel:Channel._call_soon",
        "self._owner.loop.call_soon(lambda: self._call(self.on_status))",
        "self._call(self.on_status)",
        registry.test_a_status_row_drops_no_rows_of_a_subscriber_that_keeps_up,
    ),
    "rows are requested within emit": fault(
        "channel:Channel.request_rows",
        "self._is_emitting",
        "False",
        registry.test_rows_that_a_subscriber_requests_within_emit_follow_the_cursor_of_that_emit,
    ),
    "packets without rows fill a queue": fault(
        "subscription:Subscription.put_cursors",
        "self.queue and not self.queue[-1].rows",
        "False",
        subscriptions.test_only_the_newest_packet_without_rows_is_kept_at_the_end_of_a_queue,
    ),
    "the stall clock begins again with each packet": fault(
        "subscription:Subscription.put",
        "not older",
        "True",
        registry.test_paced_packets_wait_once_for_a_subscriber_that_receives_nothing,
    ),
    "rows of an outage are emitted without a pause": (
        Fault(
            "channel:Channel.pace",
            (
                ("await asyncio.sleep(0)", "pass"),
                ("(until := self._patient_until()) is not None", "False"),
            ),
        ),
        registry.test_paced_packets_lose_no_row_of_a_subscriber_that_receives_each_half_second,
    ),
    "rows of an outage do not wait for a subscriber that lags": fault(
        "channel:Channel._patient_until",
        "each.above_high_water",
        "False",
        registry.test_paced_packets_lose_no_row_of_a_subscriber_that_receives_each_half_second,
    ),
    "rows of an outage wait for a stuck subscriber each time": fault(
        "channel:Channel._patient_until",
        "each.waiting_since + PATIENCE",
        "now + PATIENCE",
        registry.test_paced_packets_wait_once_for_a_subscriber_that_receives_nothing,
    ),
    "rows that are due are not requested": fault(
        "paced:PacedChannel._due_now",
        "self.request_rows()",
        "pass",
        registry.test_a_row_that_waits_for_its_packet_is_sent_when_the_packet_is_due,
    ),
    "an evicted subscription stays in its channel": fault(
        "subscription:Subscription._evict",
        "channel.subscription_left(self)",
        "pass",
        registry.test_no_row_enters_the_queue_of_a_stalled_subscription,
    ),
    "the batch is sent twice": fault(
        "producer:_Producer.flush",
        "rows = self._batch[:]",
        "rows = self._batch[:] * 2",
        producer.test_rows_without_a_wait_between_them_are_one_packet,
    ),
    "rows before an error are lost": fault(
        "producer:_Producer.read",
        "self._finish()",
        "pass",
        registry.test_an_error_reaches_every_subscriber_after_the_rows_before_it,
    ),
    "a bad row loses its batch": fault(
        "producer:_Producer.flush",
        "packets, error = self._encode_singly(rows, stamps)",
        "packets, error = [], self._encode_singly(rows, stamps)[1]",
        producer.test_the_rows_before_a_bad_row_are_sent_and_the_error_names_it,
    ),
    "the generator is not closed": fault(
        "producer:_close",
        "await rows.aclose()",
        "pass",
        producer.test_a_stream_that_is_left_at_a_yield_has_not_ended_before_its_finally,
    ),
    "a wait of the author does not end the batch": fault(
        "producer:_Producer.author_waits",
        "self._channel.has_demand",
        "False",
        registry.test_lingering_keeps_the_stream_for_the_next_subscriber,
    ),
    "a full subscription does not pause the author": fault(
        "producer:_Producer.flush",
        "channel.can_send",
        "channel.open",
        registry.test_block_pauses_the_author_while_another_subscriber_has_demand,
    ),
    "a closing channel does not stop the author": fault(
        "producer:_Producer.read",
        "not self._channel.open",
        "False",
        registry.test_a_stream_that_suppresses_its_cancellation_ends_at_its_next_yield,
    ),
    "an author who never waits blocks other tasks": fault(
        "producer:_Producer._pause",
        "self.flush()\nawait asyncio.sleep(0)",
        "self.flush()",
        producer.test_an_author_who_never_waits_blocks_no_task_while_the_channel_lingers,
    ),
    "a timeout around a yield is taken for a cancellation": fault(
        "producer:_Producer.read",
        "self._is_pausing and self._channel.open and _is_stray_cancellation()",
        "False",
        producer.test_a_timeout_that_expires_at_a_yield_is_an_error,
    ),
    "held rows are lost at the end": fault(
        "producer:_SortingProducer._finish",
        "self._batch += self._sorter.release(math.inf)",
        "pass",
        ordering.test_held_rows_are_sent_at_the_end_and_before_an_error,
    ),
    "memory is not released": fault(
        "subscription:Subscription._release",
        "self._memory.release(surplus)",
        "pass",
        memory.test_memory_is_reserved_in_steps_and_released_when_the_packets_are_sent,
    ),
    "a subscription that is left keeps its memory": fault(
        "subscription:Subscription.leave",
        "self.sent()",
        "pass",
        memory.test_a_queue_that_gets_no_memory_drops_its_oldest_packets,
    ),
    "an evicted subscription keeps its memory": fault(
        "subscription:Subscription._evict",
        "self._release()",
        "pass",
        memory.test_fail_names_the_memory_limit,
    ),
    "memory of the process is not released": fault(
        "memory:MemoryPool.release",
        "self._parent.release(size)",
        "pass",
        memory.test_memory_is_reserved_in_steps_and_released_when_the_packets_are_sent,
    ),
    "a refused reservation counts": fault(
        "memory:MemoryPool.reserve",
        "parent is not None and not parent.reserve(size)",
        "False",
        memory.test_a_queue_that_gets_no_memory_drops_its_oldest_packets,
    ),
    "the newest packets need no memory": fault(
        "subscription:Subscription.put",
        "self._overdraw()",
        "pass",
        memory.test_latest_keeps_the_newest_packet_without_memory,
    ),
    "a queue without memory does not overflow": fault(
        "subscription:Subscription._is_over_bounds",
        "self._is_refused",
        "False",
        memory.test_a_queue_that_gets_no_memory_drops_its_oldest_packets,
    ),
    "a queue without memory does not block the author": fault(
        "subscription:Subscription.is_full",
        "self._is_refused",
        "False",
        memory.test_block_makes_the_author_wait_when_there_is_no_memory,
    ),
    "packets that are not sent need no memory": fault(
        "subscription:Subscription.receive_nowait",
        "self._held_bytes = self._queued_bytes",
        "self._held_bytes = 0",
        memory.test_what_is_received_and_not_sent_counts,
    ),
    "a queue that was received is still refused": fault(
        "subscription:Subscription._release",
        "self._is_refused = False",
        "pass",
        memory.test_a_queue_that_was_refused_is_not_full_when_it_was_received_and_sent,
    ),
    "one limit for all instances": fault(
        "registry:ChannelRegistry.memory_of",
        "self.memory.of_instance()",
        "self.memory",
        memory.test_one_instance_cannot_take_the_memory_of_another,
    ),
    "subscribers have no time to receive what a join emits": fault(
        "producer:_Producer._pause",
        "channel.has_queued",
        "False",
        producer.test_rows_that_a_join_emits_count_as_older_only_after_subscribers_could_receive,
    ),
    "held rows have no timer": fault(
        "producer:_SortingProducer._sort",
        "self._start_timer()",
        "pass",
        ordering.test_held_rows_are_sent_by_a_timer_when_the_author_yields_nothing,
    ),
    "the timer of held rows fires only once": fault(
        "producer:_SortingProducer._release",
        "self._timer = None",
        "pass",
        ordering.test_the_timer_starts_again_after_rows_were_sent_without_it,
    ),
    "rows are sorted only when they are sent": fault(
        "producer:_SortingProducer.author_waits",
        "self._sort()",
        "pass",
        ordering.test_held_rows_are_sent_by_a_timer_when_the_author_yields_nothing,
    ),
    "the batch of sorted rows grows without bound": fault(
        "producer:_SortingProducer._flush_if_needed",
        "self._yields >= self._size",
        "False",
        ordering.test_the_batch_stays_small_when_the_subscriber_receives_nothing,
    ),
    "a row that cannot be sorted is ignored": fault(
        "producer:_SortingProducer._sort",
        "self._channel.fail(error)",
        "pass",
        ordering.test_a_row_that_cannot_be_sorted_fails_the_channel_after_the_rows_before_it,
    ),
    "a list counts as many yields": fault(
        "producer:_SortingProducer._measure",
        "super()._measure(self._yields, seen, size * seen // rows)",
        "super()._measure(seen, seen, size * seen // rows)",
        ordering.test_the_size_of_a_batch_is_measured_by_yields_not_by_rows,
    ),
}

MET_BY_THE_MACHINE = (
    "a successor does not wait",
    "a wait of the author does not end the batch",
    "memory is not released",
    "the end does not wake the subscriber",
    "the newest packets are dropped",
)
"""Faults that so many histories meet that the state machine always catches them. For all others it
depends on the histories that Hypothesis makes, which depend on the modules that are imported."""

WITNESSES = {witness.__name__: witness for _, witness in FAULTS.values()}


def run_machine(parts: Parts) -> None:
    machine = type("PlantedMachine", (RegistryMachine,), {"parts": parts})
    once = {"derandomize": True, "database": None, "phases": [Phase.generate]}
    play(machine, HISTORIES, steps=40, **once)


def run_test(test: Callable[..., Any], parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """Run a test with these parts, within some virtual hours."""
    given = {"parts": parts, "caplog": caplog, "scope": "asyncio.timeout", "how": "returns"}
    loop = VirtualLoop()
    try:
        work = test(**{name: given[name] for name in inspect.signature(test).parameters})
        loop.run_until_complete(asyncio.wait_for(work, 10_000))
    finally:
        loop.close()


def assert_fails(run: Callable[[], Any]) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with pytest.raises(BaseException) as caught:
            run()
    finally:
        logging.disable(logging.NOTSET)
    assert not isinstance(caught.value, (LookupError, KeyboardInterrupt)), caught.value
    assert not str(caught.value).startswith("Timeout"), "the time of the test is over"


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_planted_fault_is_caught_by_its_witness(name, caplog, monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.05)
    fault, witness = FAULTS[name]
    parts = planted(fault)
    assert_fails(lambda: run_test(witness, parts, caplog))


@pytest.mark.parametrize("name", MET_BY_THE_MACHINE)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_planted_fault_is_caught_by_the_machine(name, monkeypatch):
    monkeypatch.setattr("aiostream_ds.testing.virtual_loop._WAIT", 0.05)
    parts = planted(FAULTS[name][0])
    assert_fails(lambda: run_machine(parts))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_machine_finds_nothing_in_the_unchanged_modules():
    run_machine(planted(None))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(WITNESSES))
def test_each_witness_passes_with_the_unchanged_modules(name, caplog):
    run_test(WITNESSES[name], planted(None), caplog)


@pytest.mark.slow
def test_each_fault_can_be_planted():
    for fault, _ in FAULTS.values():
        faulty_tree(fault)


@pytest.mark.parametrize(
    "function, old, new",
    [
        ("channel:Channel.missing", "self.close()", "pass"),
        ("missing:Channel.close", "self.close()", "pass"),
        ("channel:Channel.close", "self.missing()", "pass"),
        ("channel:Channel.emit", "packets[0]", "packets[1]"),  # occurs twice
        ("channel:Channel.has_demand", "not subscription.queue", "pass"),  # not an expression
    ],
)
def test_a_fault_that_cannot_be_planted_is_an_error(function, old, new):
    with pytest.raises(LookupError):
        faulty_tree(Fault(function, ((old, new),)))
