"""The figures: workloads, keys of their results, units and targets."""

from dataclasses import dataclass

__all__ = ["FIGURES", "OURS", "REFERENCE", "WORKLOADS", "Figure"]

OURS = "ours"
REFERENCE = "go"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the results: a key of the load client's result for a workload.

    `must` and `stretch` are targets: lower bounds if `more`, otherwise upper bounds; of the ratio
    to the reference, or of the value if `absolute`. None: no target. `against` is another
    reference: (server, workload, key).
    """

    workload: str
    key: str
    unit: str
    text: str
    more: bool
    must: float | None
    stretch: float | None
    against: tuple[str, str, str] | None = None
    absolute: bool = False

    @property
    def name(self) -> str:
        return f"{self.workload} {self.key}"

    @property
    def base(self) -> tuple[str, str, str]:
        return self.against or (REFERENCE, self.workload, self.key)

    def reached(self, value: float, target: float | None) -> bool:
        """Whether a ratio, or an absolute value, reaches the target."""
        return target is not None and (value >= target if self.more else value <= target)


def _rate(
    workload: str,
    text: str,
    must: float,
    stretch: float | None,
    key: str = "pps",
    unit: str = "packets/s",
) -> Figure:
    return Figure(workload, key, unit, text, True, must, stretch)


FIGURES = (
    _rate("b1x2", "one stream, packets of 1 row x 2 fields", 2.3, None),
    _rate("b100x5", "one stream, 100 x 5", 4.5, None),
    _rate("b10000x5", "one stream, 10,000 x 5", 3, 3.5),
    _rate("rows", "rows yielded one by one, one stream", 8, None, "rps", "rows/s"),
    _rate("mixed", "rows of eight mixed columns, one by one", 7, None, "rps", "rows/s"),
    Figure(
        *("mixed", "rps", "rows/s", "the same against Go that merges queued rows", True),
        *(1.2, None, ("go-batch", "mixed", "rps")),
    ),
    _rate("messages", "the same rows as JSON messages", 6, None, "rps", "rows/s"),
    Figure(
        *("messages", "rps", "rows/s", "the same against Go that merges queued rows", True),
        *(1.2, None, ("go-batch", "messages", "rps")),
    ),
    Figure(
        *("columns", "rps", "rows/s", "numpy columns of 5,000 rows; Go: its `rows`", True),
        *(None, 40, (REFERENCE, "rows", "rps")),
    ),
    Figure("columns", "rps", "rows/s", "the same against Go's own columns", True, None, None),
    _rate("b1x2s8", "eight streams at once, 1 x 2", 2, None),
    _rate("b100x5s8", "eight streams at once, 100 x 5", 3, None),
    Figure(
        "fan1000",
        "srv_us",
        "µs CPU a packet",
        "1,000 subscribers, 100 rows at 10 Hz",
        False,
        0.2,
        None,
    ),
    Figure("mix", "p99_ms", "ms, p99", "ten 10 Hz channels during a burst", False, 1.5, 1),
    _rate("sub16", "SubscribeStream, 16 callers", 1.4, 1.5, "cps", "calls/s"),
    _rate("q10c8", "QueryData of 10 rows, 8 callers", 1.3, None, "cps", "calls/s"),
    Figure("q1m", "p50_ms", "ms", "QueryData of 1,000,000 rows", False, 0.33, None),
    Figure("t1000", "cpu_pct", "% CPU", "1,000 channels at 10 Hz", False, 0.6, None),
    Figure("t1000", "p99_ms", "ms, p99", "the same: age of a row at the client", False, 0.9, None),
    Figure("m10000", "open_s", "s", "opening 10,000 channels", False, 1, None),
    Figure("m10000", "opening_p99_ms", "ms, p99", "a health check while they open", False, 2, 1),
    Figure("m10000", "open_p99_ms", "ms, p99", "a health check while they are open", False, 2, 1),
    Figure("m10000", "channel_kb", "KB", "memory of a channel", False, 9, None, absolute=True),
    Figure("herd", "all_s", "s", "5,000 RunStreams at once, until all have rows", False, 1.2, 1),
    Figure(
        *("herd", "check_max_ms", "ms", "the longest health check meanwhile", False, 250, None),
        absolute=True,
    ),
    Figure(
        *("cold", "health_ms", "ms", "exec to the first health response; ratio to bare Python"),
        *(False, 1.25, 1.1, ("python", "bare", "end_ms")),
    ),
)

WORKLOADS = (*dict.fromkeys(f.workload for f in FIGURES),)
"""In the order in which they run; `bare` is a part of `cold`."""
