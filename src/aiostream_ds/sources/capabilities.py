"""What the streams of a source can do: shown by "Save & test", and a table in docs/sources.md."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds.datasource import DataSource

__all__ = ["Ability", "Capabilities", "DeclaredCapabilities", "stream_capabilities"]

Ability = bool | str
"""Whether it is possible; a text has the condition, such as "with QoS 1"."""

DeclaredCapabilities = Mapping[str, Mapping[str, Ability]]
"""By stream, what a class declares of its `Capabilities`."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What one stream can do."""

    history: Ability = False
    """Panels and alert rules get rows of the past."""
    resume: Ability = False
    """No row is lost while the connection, or the upstream system, is away for a while."""
    event_time: Ability = False
    """Rows have the times of their events, not those of their arrival."""
    publish: Ability = False
    """Panels can send messages."""

    def text(self) -> str:
        """For the details of "Save & test": `can: history, event times; cannot: publish`."""
        able, unable = [], []
        for name, words in _WORDS.items():
            ability = getattr(self, name)
            if not ability:
                unable.append(words)
            else:
                able.append(f"{words} ({ability})" if isinstance(ability, str) else words)
        parts = [f"can: {', '.join(able)}"] if able else []
        if unable:
            parts.append(f"cannot: {', '.join(unable)}")
        return "; ".join(parts)


_WORDS = {
    "history": "history",
    "resume": "resume after outages",
    "event_time": "event times",
    "publish": "publish",
}


def stream_capabilities(kind: type[DataSource[Any]]) -> dict[str, Capabilities]:
    """What each stream of a class can do, by its name.

    A stream has a history with a history hook, resumes with a cursor and a history, and publishes
    with a publish hook. What differs, and the times of events, a class declares:

        capabilities: ClassVar[DeclaredCapabilities] = {
            "topic": {"event_time": True, "resume": "with QoS 1"}
        }

    Raises:
        TypeError: the class declares something of a stream that it does not have, or an ability
            that does not exist.
    """
    declared: DeclaredCapabilities = getattr(kind, "capabilities", {})
    unknown = declared.keys() - kind._ds_plan.streams.keys()
    if unknown:
        raise TypeError(f"{kind.__name__}.capabilities: expected streams, got {sorted(unknown)}")
    return {
        name: replace(_derived(stream), **declared.get(name, {}))
        for name, stream in kind._ds_plan.streams.items()
    }


def _derived(stream: StreamPlan) -> Capabilities:
    has_history = stream.history is not None
    return Capabilities(
        history=has_history,
        resume=has_history and stream.cursor is not None,
        publish=stream.publish is not None,
    )
