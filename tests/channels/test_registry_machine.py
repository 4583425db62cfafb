"""The registry, subscriptions and producer under any history: see registry_machine.py."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.channels.registry_machine import RegistryMachine

_FEW = 10
_PROFILES = {"fast": 25, "ci": 2_000, "deep": 10_000}
_HISTORIES = os.environ.get("AIOSTREAM_DS_HISTORIES")
_MANY = int(_HISTORIES or _PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "fast")])
_PARTS = 2  # which run in several processes at a time; each has histories of its own


def play(histories: int) -> None:
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=50,
            deadline=None,
            derandomize=False,  # also where Hypothesis finds that it runs in CI: parts must differ
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate]
            + ([] if _HISTORIES else [Phase.shrink]),
        ),
    )


def test_a_few_histories_keep_the_promises():
    play(_FEW)


@pytest.mark.slow
@pytest.mark.timeout(60 + _MANY)
@pytest.mark.parametrize(
    "part",
    [pytest.param(n, marks=pytest.mark.xdist_group(f"histories {n}")) for n in range(_PARTS)],
)
def test_any_history_keeps_the_promises(part):
    play(-(-_MANY // _PARTS))
