"""The registry, subscriptions and producer under any history: see registry_machine.py."""

import os

from hypothesis import HealthCheck, Phase, settings

from tests.channels.registry_machine import RegistryMachine

_PROFILES = {"fast": 25, "ci": 200, "deep": 5_000}
_HISTORIES = os.environ.get("AIOSTREAM_DS_HISTORIES")

TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(
    max_examples=int(_HISTORIES or _PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "fast")]),
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate] + ([] if _HISTORIES else [Phase.shrink]),
)
