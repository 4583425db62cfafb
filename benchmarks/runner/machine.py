"""The machine: its fastest Python, its processor and load."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Interpreter", "fastest", "load", "output", "processor"]

DEBIAN = Path("/usr/bin/python3")
TOLERANCE = 1.1  # Debian's Python is used if it takes at most this times the fastest's time

LOOP = """
import sys, time
assert sys.version_info >= (3, 11)
def loop():
    started, total = time.perf_counter(), 0
    for i in range(200_000):
        total += i * i % 7
    return time.perf_counter() - started
version = sys.version.split()[0] + ("" if sys.implementation.name == "cpython" else " not CPython")
best = 1.0
for _ in range(40):  # spread over seconds: a shared machine is slow at times
    best = min(best, loop())
    time.sleep(0.05)
print(best, version, sys._base_executable)
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python of this machine; `seconds` is the time of a simple loop."""

    path: Path
    version: str
    seconds: float


def output(*command: str | Path) -> str:
    """The stripped output of a program."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _interpreters() -> Iterator[Interpreter]:
    names = [f"python3.{minor}" for minor in range(11, 20)]
    found = [DEBIAN, *(DEBIAN.with_name(n) for n in names), *map(shutil.which, ["python3", *names])]
    seen = set()
    for path in (p for p in found if p is not None and os.access(p, os.X_OK)):
        try:
            seconds, version, real = output(path, "-I", "-c", LOOP).split(maxsplit=2)
        except subprocess.CalledProcessError:
            continue  # older than 3.11, or not a Python
        identity = os.path.realpath(real)
        if identity not in seen:
            seen.add(identity)
            yield Interpreter(Path(path if path == DEBIAN else real), version, float(seconds))


def fastest() -> tuple[Interpreter, list[Interpreter]]:
    """The Python to measure with, and all of them, the fastest first."""
    every = sorted(_interpreters(), key=lambda i: i.seconds)
    if not every:
        raise SystemExit("expected Python 3.11 or newer, got none; install one")
    limit = every[0].seconds * TOLERANCE
    return next((i for i in every if i.path == DEBIAN and i.seconds <= limit), every[0]), every


def processor() -> str:
    """The processor's model and number."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {len(os.sched_getaffinity(0))} processors"


def load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())
