"""A training loop that shows its metrics while it runs: live, with all earlier steps. Needs pandas.

Try it:  python examples/training.py
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from aiostream_ds import Broadcast, Cursor, DataSource, HistoryRange, Rows, show, stream

metrics = Broadcast[dict[str, Any]]()
log: list[dict[str, Any]] = []  # of all steps


def train(steps: int = 100_000) -> None:
    """Fit a plane to points, by gradient descent."""
    points = np.random.default_rng(1).normal(size=(20_000, 3))
    heights, weights = points @ [0.5, -0.3, 0.1], np.zeros(3)
    for step in range(steps):
        errors = points @ weights - heights
        weights -= 0.01 * (points * errors[:, None]).mean(0)
        log.append({"time": datetime.now(UTC), "step": step, "loss": (errors**2).mean()})
        metrics.publish(log[-1])


class Training(DataSource):
    @stream("metrics", cursor="step")
    async def metrics(self, after: Cursor) -> Rows:
        async for row in metrics.subscribe():
            yield row

    @metrics.history
    async def earlier(self, history_range: HistoryRange) -> pd.DataFrame:
        return pd.DataFrame(history_range.select(log, cursor="step"))


if __name__ == "__main__":
    with show(Training):
        train()
