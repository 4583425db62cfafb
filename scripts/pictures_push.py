"""Pushes the rows of a picture to a console: a training run and a kitchen. For scripts/pictures."""

import sys
from datetime import UTC, datetime, timedelta
from math import exp, sin

from aiostream_ds.push import Push

ROWS = 58
"""Seconds before now: what a page of a minute draws."""


def row(path: str, n: int) -> dict[str, float]:
    """The n-th row of a path."""
    wave = sin(n * 12.9898) * 0.5
    if path == "train/run-1":
        loss = exp(-n / 18)
        return {"loss": loss + 0.03 * wave, "accuracy": 1 - 0.8 * loss + 0.02 * wave}
    return {"celsius": 21 + sin(n / 9) + 0.1 * wave, "percent": 45 + 4 * sin(n / 14)}


def main(url: str) -> None:
    """Push the rows of each path."""
    start = datetime.now(UTC) - timedelta(seconds=ROWS)
    for path in ("train/run-1", "house/kitchen"):
        with Push(url, path) as push:
            for n in range(ROWS):
                push.send({"time": start + timedelta(seconds=n), **row(path, n)})


if __name__ == "__main__":
    main(sys.argv[1])
