"""The answer to Save & test: what was found and what is wrong, and more in its details."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiostream_ds.models import Health

__all__ = ["health_report"]


def health_report(
    found: Sequence[str],
    problems: Iterable[str] = (),
    more: Iterable[str] = (),
    details: Mapping[str, Any] | None = None,
    *,
    ok: bool = True,
) -> Health:
    """A short message, which Grafana shows as the title of a box.

    Args:
        found: what the source is connected to, and what is there.
        problems: what is wrong; they come first if the test has failed. Empty ones are left out.
        more: lines such as abilities, which Grafana shows when the box is opened.
        details: for programs that call the API.
    """
    wrong = [text for text in problems if text]
    parts = [*found, *wrong] if ok else [*wrong, *found]
    # Grafana's name for lines that it shows as they are
    verbose = {"verboseMessage": "\n".join(more)}
    return Health(ok=ok, message="; ".join(parts), details={**(details or {}), **verbose})
