"""The other nodes of the cluster: which ones have a lease, and which have crashed before its end.

When a process ends, the system closes its connections, and the server has nobody left who watches
the channel `doubts_of` its node. A node has crashed if

    it has missed a renewal of its lease, and
    nobody has watched that channel for a fifth of a lease, asked over one connection,
    over which somebody was seen to watch it before. Among few nodes silence counts from a
    sixth of a lease after the last renewal; among many it would take too many questions.

So a process that is paused, busy, or cut off without a word keeps its lease to the end: its
connections stay. After a server has started again, or this node has connected again, silence of
the others has no meaning until they were seen. If the answer is wrong, as for a process that cannot
connect again for so long, its channels move to other nodes, and it is fenced: that is all.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple
from zlib import crc32

import anyio

from aiostream_ds._cluster.engine import Engine, EngineError, Watched
from aiostream_ds._cluster.participation import doubts_of
from aiostream_ds._loggers import get_logger

__all__ = ["CrashDetection", "OtherNodes"]

log = get_logger(__name__)

_POLLS = 8  # questions for the other nodes in the time of a lease
_PER_NODE = 0.001  # seconds for each node of the cluster, between two questions for all
_LONGEST_PAUSE = 32  # polls without a question for a node that cannot be seen
_FEW = 4  # other nodes up to which they are asked for early, and one goes first
_QUESTIONS = 16  # most nodes whose connections are asked for at a time: a slow engine is spared


class _Silence(NamedTuple):
    """Since when nobody watches the channel of a node, and when it is known to have crashed."""

    since: float
    known_at: float


class CrashDetection:
    """Which nodes have crashed. Does nothing by itself.

    Args:
        lease: seconds for which a lease is valid.
    """

    def __init__(self, lease: float) -> None:
        self._overdue = 1.1 * lease / 3  # seconds after which it was renewed in any case
        self._early = lease / 6
        self._silence = lease / 5
        self._ages: Mapping[str, float] = {}
        self._seen: dict[str, int] = {}  # the connections over which nodes were seen
        self._silent: dict[str, _Silence] = {}
        self._polls = 0
        self._pauses: dict[str, tuple[int, int]] = {}  # of unseen nodes: until which poll, how long

    def forget(self) -> None:
        """The connection of this node was lost: all others have to be seen again."""
        self._seen.clear()
        self._silent.clear()
        self._pauses.clear()

    @property
    def suspects(self) -> bool:
        """Whether a node may have crashed."""
        return bool(self._silent)

    def known_in(self, now: float) -> float:
        """Seconds until the first of these nodes may be known to have crashed."""
        return min(silence.known_at for silence in self._silent.values()) - now

    def questions(self, ages: Mapping[str, float], owners: Collection[str]) -> list[str]:
        """The nodes whose connections to ask for: those that have missed a renewal, with few nodes
        also those that will soon renew their leases; and those that were not seen yet, more and
        more seldom if they cannot be seen.

        Args:
            ages: the leases; see `Engine.nodes`.
            owners: the nodes that matter.
        """
        self._seen = {node: number for node, number in self._seen.items() if node in ages}
        age = self._early if len(owners) <= _FEW else self._overdue
        late = {node for node in owners if ages.get(node, 0.0) > age}
        self._silent = {node: each for node, each in self._silent.items() if node in late}
        self._ages = ages
        self._polls += 1
        self._pauses = {
            node: pause
            for node, pause in self._pauses.items()
            if node in ages and node not in self._seen
        }
        wanted = [node for node in owners if node in ages and self._is_due(node, node in late)]
        wanted.sort(
            key=lambda node: (
                node not in self._silent,
                node not in late,
                self._pauses.get(node, (0, 0)),
            )
        )
        for node in wanted[:_QUESTIONS]:
            _, before = self._pauses.get(node, (0, 0))
            pause = min(2 * before or 1, _LONGEST_PAUSE)
            self._pauses[node] = self._polls + pause, pause
        return wanted[:_QUESTIONS]

    def _is_due(self, node: str, is_late: bool) -> bool:
        until, _ = self._pauses.get(node, (0, 0))
        return is_late or (node not in self._seen and self._polls >= until)

    def has_crashed(self, node: str, answer: Watched, now: float) -> bool:
        """What an answer means."""
        if answer.is_watched:
            self._seen[node] = answer.connection
            self._silent.pop(node, None)
            return False
        if self._seen.get(node) != answer.connection:
            self._seen.pop(node, None)
            self._silent.pop(node, None)
            return False
        since = self._silent[node].since if node in self._silent else now
        is_overdue_in = self._overdue - self._ages[node]
        silence = _Silence(since, max(since + self._silence, now + is_overdue_in))
        self._silent[node] = silence
        return now >= silence.known_at


class OtherNodes:
    """The nodes with a valid lease, as last heard.

    Args:
        engine: knows them.
        name: of this node.
        lease: seconds for which a lease is valid.
        owners: returns the nodes whose channels this one may take.

    Attributes:
        alive: their names, with this node's.
    """

    def __init__(
        self, engine: Engine, name: str, lease: float, owners: Callable[[], Collection[str]]
    ) -> None:
        self.alive: frozenset[str] = frozenset()
        self._engine, self._name, self._lease, self._owners = engine, name, lease, owners
        self._crashes = CrashDetection(lease)
        self._in_order: tuple[frozenset[str], list[str]] = self.alive, []  # `alive`, sorted

    def is_first(self, channel: str) -> bool:
        """Whether this node is the first one to take a channel whose owner has gone. It is another
        one for each channel, so that each takes a share, and the same for all nodes that know of
        the same ones. Of many nodes all are: the first one would probably not follow the channel.
        """
        if len(self.alive) > _FEW + 1:
            return True
        if self._in_order[0] is not self.alive:
            self._in_order = self.alive, sorted(self.alive)
        names = self._in_order[1] or [self._name]
        return names[crc32(channel.encode()) % len(names)] == self._name

    def pause(self, began: float) -> float:
        """Seconds until the next question, after one that has begun then: more with many nodes; if
        one is silent, when it is known whether it has crashed."""
        now, shortest = anyio.current_time(), self._lease / _POLLS
        if not self._crashes.suspects:
            shortest = min(max(shortest, _PER_NODE * len(self.alive)), self._lease / 2)
        pause = max(began + shortest - now, 0.0)
        known_in = self._crashes.known_in(now) if self._crashes.suspects else 0.0
        return min(pause, known_in) if known_in > 0 else pause

    def reconnected(self) -> None:
        """This node has connected again."""
        self._crashes.forget()

    async def look(self) -> None:
        """Ask once. Raises EngineError and TimeoutError."""
        with anyio.fail_after(self._lease / 3):
            ages = await self._engine.nodes()
        self.alive = frozenset(ages) | {self._name}
        owners = set(self._owners()) - {self._name}
        questions = self._crashes.questions(ages, owners)
        if questions:
            with anyio.move_on_after(self._lease / 3):
                async with anyio.create_task_group() as group:
                    for node in questions:
                        group.start_soon(self._ask_for, node)

    async def _ask_for(self, node: str) -> None:
        """Find out whether a node has crashed. If the engine does not answer, its lease decides."""
        try:
            answer = await self._engine.watched(doubts_of(node))
            if self._crashes.has_crashed(node, answer, anyio.current_time()):
                await self._engine.end_lease(node, self._lease / 3)
                self.alive -= {node}
                log.info("a server of the cluster has closed its connections", extra={"node": node})
        except EngineError as error:
            log.debug("who watches a channel is not known: %s", error)
