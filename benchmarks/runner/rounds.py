"""Runs workloads: within a round every server in turn, first another one in each round."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .programs import BUILD, ROOT, Bench
from .ratios import Measurement

__all__ = ["measure", "rounds", "tell"]

LIMIT = 240.0  # seconds for one workload of one server
STDERR = BUILD / "stderr"


def tell(text: str) -> None:
    """What happens, for who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def measure(
    bench: Bench, name: str, workload: str, scale: float, environ: dict[str, str] | None = None
) -> dict[str, Any]:
    """What the load client says; a process of the server's own each time."""
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
        out, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"error": f"not ended within {LIMIT:.0f} s"}
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    try:
        seen: dict[str, Any] = json.loads(out.replace(f"{ROOT}/", ""))
    except ValueError:
        return {"error": f"the client ended with {process.returncode} and said {out[:200]!r}"}
    return seen


def rounds(
    bench: Bench, workloads: Sequence[str], count: int, scale: float
) -> Iterator[Measurement]:
    """Every server of every workload in every round."""
    names = [*bench.programs]
    for number in range(count):
        for place, workload in enumerate(workloads):
            start = (number + place) % len(names)
            order = [(name, workload) for name in names[start:] + names[:start]]
            if workload == "cold":
                order.insert(number % (len(order) + 1), ("python", "bare"))
            for name, run in order:
                seen = measure(bench, name, run, scale)
                tell(f"round {number + 1}/{count} {run:9} {name:8} {_short(seen)}")
                yield Measurement(number, run, name, seen)


def _short(seen: dict[str, Any]) -> str:
    if "error" in seen:
        return f"does not count: {seen['error']}"
    return " ".join(
        f"{key}={value:.4g}" for key, value in seen.items() if isinstance(value, int | float)
    )
