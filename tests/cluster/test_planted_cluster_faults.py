"""Each planted fault breaks an invariant of the simulation: the invariants can find them.

A fault is a replaced expression or statement of a function, found in its syntax tree.
"""

import ast
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.channels.parts import parse, plant
from tests.cluster.simulation import Broken, History, Parts, Scenario
from tests.cluster.test_histories import SCENARIOS

HISTORIES = 25
NAMES = {
    "message_delivery": "aiostream_ds._cluster.message_delivery",
    "follower": "aiostream_ds._cluster.follower",
    "participation": "aiostream_ds._cluster.participation",
    "owned_log": "aiostream_ds._cluster.owned_log",
    "upstream_run": "aiostream_ds._cluster.upstream_run",
    "following": "aiostream_ds._cluster.following",
    "member": "aiostream_ds._cluster.member",
    "node": "aiostream_ds._cluster.node",
    "engine": "tests.cluster.model_engine",
}
Edits = tuple[tuple[str, str, str], ...]
"""Of each: the module and function, what is replaced, and by what."""

FAULTS: dict[str, tuple[Edits, str]] = {
    "append does not check the term": (
        (
            ("engine:ModelServer.append", "found.last >= entry.id", "False"),
            ("engine:ModelServer.append", "found.last != entry.previous", "False"),
        ),
        "numbered",
    ),
    "the follower ignores what was before an entry": (
        (
            (
                "follower:LogFollower.event",
                "entry.previous == self.position and entry.id > self.position",
                "entry.id > self.position",
            ),
            ("follower:LogFollower._accept", "content.before == self._tip", "True"),
        ),
        "missed notifications",
    ),
    "messages are received again": (
        (
            (
                "follower:LogFollower._accept_message",
                "delivery.has_received(message.id)",
                "False",
            ),
            ("message_delivery:_rows_after", "return None", "return message"),
        ),
        "numbered",
    ),
    "rows are received again": (
        (
            (
                "message_delivery:_rows_after",
                "return message._replace(after=mine.last)",
                "return message",
            ),
        ),
        "numbered",
    ),
    "a new owner begins now": (
        (("owned_log:OwnedLog.open", "await self._resume()", "None"),),
        "numbered",
    ),
    "a channel is not given up": (
        (("member:give_up", "await node.engine.resign(channel, node.name, term)", "pass"),),
        "numbered",
    ),
    "what the engine did not get is not given up later": (
        (
            (
                "node:ClusterNode._give_up_each",
                "await give_up(self, channel, 0, start)",
                "pass",
            ),
        ),
        "numbered",
    ),
    "an upstream goes on without a viewer": (
        (("upstream_run:UpstreamRun._owns_on", "await channel.others_subscribe()", "True"),),
        "short",
    ),
}


def trees(edits: Edits) -> dict[str, ast.Module]:
    made = {
        short: parse(Path(str(importlib.import_module(name).__file__)).read_text("utf-8"))
        for short, name in NAMES.items()
    }
    for place, old, new in edits:
        short, _, function = place.partition(":")
        plant(made[short], function, [(old, new)])
    return made


def planted(edits: Edits) -> Parts:
    """Fresh copies of the modules, with a fault."""
    before = {name: sys.modules[name] for name in NAMES.values()}
    made: dict[str, ModuleType] = {}
    try:
        for short, tree in trees(edits).items():
            name = NAMES[short]
            made[short] = sys.modules[name] = ModuleType(name)
            exec(compile(tree, f"<planted {short}>", "exec"), made[short].__dict__)
    finally:
        sys.modules.update(before)
    return Parts(node=made["node"], engine=made["engine"])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def play(parts: Parts, scenario: Scenario) -> None:
    for seed in range(HISTORIES):
        History(seed, scenario, parts).run()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_breaks_an_invariant(name):
    edits, scenario = FAULTS[name]
    parts = planted(edits)
    with pytest.raises(Broken):
        play(parts, SCENARIOS[scenario])


@pytest.mark.slow
def test_each_fault_can_be_planted():
    for edits, _ in FAULTS.values():
        trees(edits)


@pytest.mark.slow
def test_the_copies_without_a_fault_keep_the_invariants():
    History(0, SCENARIOS["numbered"], planted(())).run()
