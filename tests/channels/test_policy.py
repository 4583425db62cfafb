"""Policies are validated when they are created, and each field has a description."""

import math

import pytest

from aiostream_ds import FieldConfig
from aiostream_ds._channels.policy import Buffer, Policy, Replay, Retry, RowOrder, SchemaPolicy


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Buffer(rows=0), "Buffer.rows must be an integer of at least 1, got 0"),
        (lambda: Buffer(rows=1.5), "Buffer.rows must be an integer .* got 1.5"),
        (lambda: Buffer(rows=True), "Buffer.rows must be an integer .* got True"),
        (lambda: Buffer(bytes=-1), "Buffer.bytes must be .* got -1"),
        (
            lambda: Buffer(full="drop"),
            "must be one of drop_oldest, latest, block, fail, got 'drop'",
        ),
        (lambda: Retry(min_delay=-1), "Retry.min_delay must be a number of at least 0, got -1"),
        (lambda: Retry(min_delay=2, max_delay=1), "Retry.max_delay must be .* at least 2, got 1"),
        (lambda: Retry(max_delay=math.inf), "Retry.max_delay must be .* got inf"),
        (lambda: Retry(factor=0.5), "Retry.factor must be .* got 0.5"),
        (lambda: Retry(jitter=1.5), "Retry.jitter must be .* at least 0 and at most 1, got 1.5"),
        (lambda: Retry(jitter=math.nan), "Retry.jitter must be .* got nan"),
        (lambda: Policy(linger=-1), "Policy.linger must be .* got -1"),
        (lambda: Policy(linger="1"), "Policy.linger must be .* got '1'"),
        (lambda: Policy(buffer=3), "Policy.buffer must be a Buffer, got 3"),
        (lambda: Retry().delay(0), "failures must be .* got 0"),
        (lambda: SchemaPolicy(columns=0), "SchemaPolicy.columns must be .* got 0"),
        (lambda: SchemaPolicy(conflict="drop"), "must be one of fail, text, null, got 'drop'"),
        (lambda: SchemaPolicy(fields={"a": "celsius"}), "a FieldConfig for each key, got {'a': 'c"),
        (lambda: SchemaPolicy(fields={1: FieldConfig()}), "a FieldConfig for each key, got {1: "),
        (lambda: SchemaPolicy(fields=[]), "must be a dict with .* got \\[\\]"),
        (lambda: SchemaPolicy(labels="host"), "SchemaPolicy.labels must be a tuple .* got 'host'"),
        (lambda: SchemaPolicy(labels=("host", "host")), "each once"),
        (lambda: SchemaPolicy(labels=("time",)), "without 'time'"),
        (lambda: SchemaPolicy(labels=("",)), "a tuple of names"),
    ],
)
def test_an_error_has_the_expected_values_and_the_bad_one(make, named):
    with pytest.raises(ValueError, match=named):
        make()


POLICIES = [Buffer, Policy, Replay, Retry, RowOrder, SchemaPolicy]
NUMBERS = [
    (owner, name, kind.__metadata__[0])
    for owner in POLICIES
    for name, kind in owner.__annotations__.items()
    if kind.__origin__ in (int, float)
]


@pytest.mark.parametrize(("owner", "name", "bounds"), NUMBERS)
def test_every_number_has_a_lower_bound_and_is_checked_against_its_bounds(owner, name, bounds):
    above = [] if bounds.le is None else [bounds.le + 1]
    for value in [bounds.ge - 1, math.nan, math.inf, True, "1", None, *above]:
        with pytest.raises(ValueError, match=rf"^{owner.__name__}\.{name} must be a.* at least"):
            owner(**{name: value})


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Buffer().rows = 3


def test_delays_grow_to_max_delay_and_stay_there():
    retry = Retry(min_delay=1, max_delay=10, factor=2, jitter=0)
    assert [retry.delay(failures) for failures in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 10, 10]
    assert retry.delay(1_000_000) == 10


def test_jitter_only_shortens_a_delay():
    delays = {Retry(min_delay=1, jitter=0.5).delay(1) for _ in range(50)}
    assert len(delays) > 1 and all(0.5 <= delay <= 1 for delay in delays)
