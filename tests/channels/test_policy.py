"""Numbers are checked when they are made, and each one can describe itself."""

import math

import pytest

from aiostream_ds._channels import policy
from aiostream_ds._channels.described import described
from aiostream_ds._channels.policy import Buffer, Policy, Retry, SchemaPolicy


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Buffer(rows=0), "Buffer.rows is 0; allowed is a whole number of at least 1"),
        (lambda: Buffer(rows=1.5), "Buffer.rows is 1.5"),
        (lambda: Buffer(rows=True), "Buffer.rows is True"),
        (lambda: Buffer(bytes=-1), "Buffer.bytes is -1"),
        (lambda: Buffer(full="drop"), "'drop'; allowed are drop_oldest, latest, block, fail"),
        (lambda: Retry(min_delay=-1), "Retry.min_delay is -1"),
        (lambda: Retry(min_delay=2, max_delay=1), "Retry.max_delay is 1; .* at least 2"),
        (lambda: Retry(max_delay=math.inf), "Retry.max_delay is inf"),
        (lambda: Retry(factor=0.5), "Retry.factor is 0.5"),
        (lambda: Retry(jitter=1.5), "Retry.jitter is 1.5; .* at least 0 and at most 1"),
        (lambda: Retry(jitter=math.nan), "Retry.jitter is nan"),
        (lambda: Policy(linger=-1), "Policy.linger is -1"),
        (lambda: Policy(linger="1"), "Policy.linger is '1'"),
        (lambda: Policy(buffer=3), "Policy.buffer is 3; allowed is a Buffer"),
        (lambda: Retry().delay(0), "failures is 0"),
        (lambda: SchemaPolicy(columns=0), "SchemaPolicy.columns is 0"),
        (lambda: SchemaPolicy(conflict="drop"), "'drop'; allowed are fail, text, null"),
        (lambda: SchemaPolicy(labels="host"), "SchemaPolicy.labels is 'host'; allowed is a tuple"),
        (lambda: SchemaPolicy(labels=("host", "host")), "each once"),
        (lambda: SchemaPolicy(labels=("time",)), "without 'time'"),
        (lambda: SchemaPolicy(labels=("",)), "a tuple of names"),
    ],
)
def test_a_bad_value_is_named_with_the_allowed_ones(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        Buffer().rows = 3


def test_delays_grow_to_the_longest_and_stay():
    retry = Retry(min_delay=1, max_delay=10, factor=2, jitter=0)
    assert [retry.delay(failures) for failures in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 10, 10]
    assert retry.delay(1_000_000) == 10


def test_jitter_only_shortens_a_delay():
    delays = {Retry(min_delay=1, jitter=0.5).delay(1) for _ in range(50)}
    assert len(delays) > 1 and all(0.5 <= delay <= 1 for delay in delays)


def test_every_number_has_one_line_of_description():
    lines = {line.name: line for line in described(policy)}
    constants = {name for name in vars(policy) if name.isupper() and not name.startswith("_")}
    fields = {
        f"{owner.__name__}.{name}"
        for owner in (Buffer, Retry, policy.Replay, Policy, SchemaPolicy, policy.RowOrder)
        for name in owner.__struct_fields__
    }
    assert set(lines) == constants | fields
    assert lines["Buffer.rows"].default == 10_000 and lines["CLOSE_TIMEOUT"].default == 1.0
    for line in lines.values():
        assert line.description.endswith(".") and "\n" not in line.description
