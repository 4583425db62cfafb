"""Where a packet's microseconds go in ours: shares by sampling, times from a run without it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .figures import OURS
from .programs import BUILD, Bench
from .report import number
from .rounds import measure, tell

__all__ = ["WORKLOADS", "profile"]

WORKLOADS = ("b1x2", "t1000")

START = "start and imports"  # what sampled.py calls what is no part of a packet

HEAD = """\
# Where a packet's microseconds go

Written by `scripts/bench --profile`, for `benchmarks/peer`. 1,000 times a second of processor \
time a signal asks the process which stage it is at, by the file of the innermost Python frame \
that is known; what a C library does counts for its caller, and kernel time for what it was asked \
by. Sampling slows things, so only the **shares** come from it; the microseconds are these shares \
of the processor time of a packet in a run without it. Starting and imports are left out; the \
opening of the thousand channels of `t1000` is in.
"""


def profile(bench: Bench, scale: float, out: Path) -> Path:
    """Measures both workloads and writes profile.md into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / "profile.md"
    page.write_text("\n".join([HEAD, *_sections(bench, scale)]) + "\n", "utf-8")
    return page


def _sections(bench: Bench, scale: float) -> Iterator[str]:
    for workload in WORKLOADS:
        samples = BUILD / f"samples-{workload}.json"
        samples.unlink(missing_ok=True)
        tell(f"profile {workload}")
        plain = measure(bench, OURS, workload, scale)
        slowed = measure(bench, OURS, workload, scale, {"PEER_SAMPLES": str(samples)})
        yield f"## {workload}"
        yield ""
        wrong = plain.get("error") or slowed.get("error")
        if wrong:
            yield f"Does not count: {str(wrong)[:300]}"
        elif not samples.exists():
            yield "Nothing was sampled: the process did not end by itself."
        else:
            yield from _tables(json.loads(samples.read_text("utf-8")), plain, slowed)
        yield ""


def _tables(
    samples: Mapping[str, Any], plain: Mapping[str, Any], slowed: Mapping[str, Any]
) -> Iterator[str]:
    stages = {name: count for name, count in samples["stages"].items() if name != START}
    total = sum(stages.values())
    if not total:
        yield "No sample fell into the work."
        return
    each = plain["srv_us"]
    yield f"{number(each)} µs of processor time a packet; {number(slowed['srv_us'])} µs while"
    yield f"sampled, {total:,} samples."
    yield ""
    yield "| stage | share | µs a packet |"
    yield "| --- | ---: | ---: |"
    for name, count in sorted(stages.items(), key=lambda item: -item[1]):
        yield f"| {name} | {count / total:.1%} | {number(each * count / total)} |"
    yield ""
    yield "| function | stage | share |"
    yield "| --- | --- | ---: |"
    functions = [row for row in samples["functions"] if row[0] != START and row[1]]
    for stage, place, count in functions[:12]:
        yield f"| `{place}` | {stage} | {count / total:.1%} |"
