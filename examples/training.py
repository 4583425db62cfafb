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
    """Fit a plane that separates two clouds of points, by gradient descent."""
    random = np.random.default_rng(1)
    points, sides = random.normal(size=(20_000, 3)), random.choice([-1.0, 1.0], 20_000)
    points += sides[:, None] * [0.5, -0.3, 0.1]
    weights = np.zeros(3)
    for step in range(steps):
        margins = sides * (points @ weights)
        weights += 0.01 * (points * (sides / (1 + np.exp(margins)))[:, None]).mean(0)
        loss, accuracy = np.log1p(np.exp(-margins)).mean(), (margins > 0).mean()
        log.append({"time": datetime.now(UTC), "step": step, "loss": loss, "accuracy": accuracy})
        metrics.publish(log[-1])


class Training(DataSource):
    @stream("metrics", cursor="step")
    async def metrics(self, after: Cursor) -> Rows:
        async for row in metrics.subscribe():
            yield row

    @metrics.history
    async def earlier(self, history_range: HistoryRange) -> pd.DataFrame:
        steps = pd.DataFrame(log[:], columns=["time", "step", "loss", "accuracy"])
        if history_range.after is None:
            shown = steps.time.between(history_range.start, history_range.end)
            return steps[shown].tail(history_range.limit)
        upto = history_range.upto or len(log)
        return steps[history_range.after + 1 : upto + 1].head(history_range.limit)


if __name__ == "__main__":
    with show(Training):
        train()
