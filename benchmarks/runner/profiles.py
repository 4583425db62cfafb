"""Profiles a packet: shares of processor time by sampling, times from a run without it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .figures import OURS
from .programs import BUILD, Bench
from .report import number
from .rounds import log, measure

__all__ = ["WORKLOADS", "profile"]

WORKLOADS = ("b1x2", "t1000")

START = "start and imports"  # sampled.py's stage for what is not part of a packet

HEAD = """\
# Where a packet's microseconds go

Written by `scripts/bench --profile`, for `benchmarks/peer`. A signal samples the process 1,000 \
times a second of processor time. The stage of a sample is that of the innermost Python frame in a \
known file, so C code and kernel time count for their caller. Sampling slows the process, so only \
the **shares** come from it; the microseconds are these shares of the processor time of a packet \
in a run without sampling. The start and imports are excluded; opening the thousand channels of \
`t1000` is included.
"""


def profile(bench: Bench, scale: float, out: Path) -> Path:
    """Measure both workloads and write profile.md to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / "profile.md"
    page.write_text("\n".join([HEAD, *_sections(bench, scale)]) + "\n", "utf-8")
    return page


def _sections(bench: Bench, scale: float) -> Iterator[str]:
    for workload in WORKLOADS:
        samples = BUILD / f"samples-{workload}.json"
        samples.unlink(missing_ok=True)
        log(f"profile {workload}")
        unsampled = measure(bench, OURS, workload, scale)
        sampled = measure(bench, OURS, workload, scale, {"PEER_SAMPLES": str(samples)})
        yield f"## {workload}"
        yield ""
        error = unsampled.get("error") or sampled.get("error")
        if error:
            yield f"Does not count: {str(error)[:300]}"
        elif not samples.exists():
            yield "No samples: the process was killed."
        else:
            yield from _tables(json.loads(samples.read_text("utf-8")), unsampled, sampled)
        yield ""


def _tables(
    samples: Mapping[str, Any], unsampled: Mapping[str, Any], sampled: Mapping[str, Any]
) -> Iterator[str]:
    stages = {name: count for name, count in samples["stages"].items() if name != START}
    total = sum(stages.values())
    if not total:
        yield "No sample is part of a packet."
        return
    each = unsampled["srv_us"]
    yield f"{number(each)} µs of processor time a packet; {number(sampled['srv_us'])} µs while"
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
    for stage, function, count in functions[:12]:
        yield f"| `{function}` | {stage} | {count / total:.1%} |"
