"""The registry, subscriptions and producer under any history: see registry_machine.py."""

import pytest

from tests.channels.registry_machine import RegistryMachine
from tests.histories import histories, in_parts, play

_FEW, _PARTS = 10, 2
_MANY = histories(fast=25, ci=2_000, deep=10_000)


def test_a_few_histories_keep_the_promises():
    play(RegistryMachine, _FEW, steps=50)


@pytest.mark.slow
@pytest.mark.timeout(60 + _MANY)
@in_parts("registry", _PARTS)
def test_any_history_keeps_the_promises(part):
    play(RegistryMachine, -(-_MANY // _PARTS), steps=50)
