"""Random histories of a state machine of Hypothesis, which several processes can play."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

_WANTED = os.environ.get("AIOSTREAM_DS_HISTORIES")


def histories(*, fast: int, ci: int, deep: int) -> int:
    """How many to play: AIOSTREAM_DS_HISTORIES, or the number of the profile of Hypothesis."""
    profiles = {"fast": fast, "ci": ci, "deep": deep}
    return int(_WANTED or profiles[os.environ.get("HYPOTHESIS_PROFILE", "fast")])


def in_parts(name: str, count: int) -> pytest.MarkDecorator:
    """Parametrizes a test by `part`: each part has histories of its own, and may run in a process
    of its own."""
    parts = [
        pytest.param(number, marks=pytest.mark.xdist_group(f"{name} {number}"))
        for number in range(count)
    ]
    return pytest.mark.parametrize("part", parts)


def play(machine: type[RuleBasedStateMachine], count: int, *, steps: int, **options: Any) -> None:
    """Play so many histories, and raise what the machine finds."""
    phases = [Phase.explicit, Phase.reuse, Phase.generate] + ([] if _WANTED else [Phase.shrink])
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=count,
            stateful_step_count=steps,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            # not derandomized, also where Hypothesis finds that it runs in CI: parts must differ
            **{"derandomize": False, "print_blob": True, "phases": phases} | options,
        ),
    )
