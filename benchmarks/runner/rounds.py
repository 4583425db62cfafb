"""Runs workloads: in a round every server in turn, starting with another one in each round."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .programs import BUILD, ROOT, Bench
from .ratios import Measurement

__all__ = ["log", "measure", "rounds"]

TIMEOUT = 240.0  # seconds for one workload of one server
STDERR = BUILD / "stderr"


def log(text: str) -> None:
    """Print progress to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def measure(
    bench: Bench, name: str, workload: str, scale: float, environ: dict[str, str] | None = None
) -> dict[str, Any]:
    """The load client's result, with a new process of the server."""
    program = bench.programs.get(name)
    size = scale * program.scales.get(workload, 1) if program else scale
    STDERR.mkdir(parents=True, exist_ok=True)
    command = [bench.client, "-w", workload, "-scale", f"{size:g}"]
    command += ["-stderr", STDERR / f"{name}.log", "--", *bench.command(name, workload)]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environ or {})},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"error": f"timeout after {TIMEOUT:.0f} s"}
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    try:
        seen: dict[str, Any] = json.loads(out.replace(f"{ROOT}/", ""))
    except ValueError:
        return {"error": f"the client ended with status {process.returncode}, output {out[:200]!r}"}
    return seen


def rounds(
    bench: Bench, workloads: Sequence[str], count: int, scale: float
) -> Iterator[Measurement]:
    """Measure every workload of every server in every round."""
    names = [*bench.programs]
    for number in range(count):
        for index, workload in enumerate(workloads):
            start = (number + index) % len(names)
            order = [
                (name, workload)
                for name in names[start:] + names[:start]
                if _has(bench, name, workload)
            ]
            if workload == "cold":
                order.insert(number % (len(order) + 1), ("python", "bare"))
            for name, run in order:
                yield _measured(bench, name, run, scale, number, f"{number + 1}/{count}")


def _has(bench: Bench, name: str, workload: str) -> bool:
    workloads = bench.programs[name].workloads
    return workloads is None or workload in workloads


def _measured(
    bench: Bench, name: str, workload: str, scale: float, number: int, label: str
) -> Measurement:
    """Measure; once more, which is reported, if the result does not count.

    On a shared machine another program's load would otherwise spoil a round.
    """
    first = ""
    while True:
        found = Measurement(number, workload, name, measure(bench, name, workload, scale), first)
        log(f"round {label} {workload:9} {name:8} {_short(found)}")
        if first or not found.error:
            return found
        first = found.error


def _short(found: Measurement) -> str:
    if found.error:
        return f"does not count: {found.error}"
    seen = found.seen
    return " ".join(
        f"{key}={value:.4g}" for key, value in seen.items() if isinstance(value, int | float)
    )
