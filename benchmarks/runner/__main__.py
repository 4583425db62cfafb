"""The command line of scripts/bench."""

import argparse
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import machine
from .figures import WORKLOADS
from .growth import grow
from .machine import DEBIAN, Interpreter
from .profiles import profile
from .programs import BUILD, PEERS, ROOT, Bench
from .report import Run, write
from .rounds import log, rounds

COMMITTED = ROOT / "benchmarks"
QUICK = 0.02


def names_of(known: Sequence[str]) -> "type[tuple[str, ...]]":
    """A type for argparse: names of `known`, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(filter(None, text.split(",")))
        if unknown := [name for name in names if name not in known]:
            problem = f"expected names of {', '.join(known)}, got {', '.join(unknown)}"
            raise argparse.ArgumentTypeError(problem)
        return names

    return parse  # type: ignore[return-value]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the plugin and its peers in turn and writes benchmarks/results.md.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads")
    parser.add_argument("--only", type=names_of(WORKLOADS), default=WORKLOADS, metavar="W1,W2")
    parser.add_argument("--peers", type=names_of(PEERS), default=PEERS, metavar="P1,P2")
    parser.add_argument(
        "--profile", action="store_true", help="only profile the processor time of a packet"
    )
    parser.add_argument(
        "--growth", action="store_true", help="only measure and draw docs/growth.svg"
    )
    parser.add_argument(
        "--quick", action="store_true", help="run everything once with small workloads, as a check"
    )
    parser.add_argument("--out", type=Path, help="a folder for the results")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.scale <= 0:
        got = f"{chosen.rounds} and {chosen.scale:g}"
        parser.error(f"--rounds must be at least 1 and --scale above 0, got {got}")
    return chosen


def output_folder(chosen: argparse.Namespace) -> Path:
    """Only the results of complete runs are written to the committed files."""
    if chosen.out is not None:
        return Path(chosen.out)
    complete = (
        chosen.rounds >= 5
        and chosen.scale >= 1
        and not chosen.quick
        and set(chosen.only) == set(WORKLOADS)
        and set(chosen.peers) == set(PEERS)
    )
    return COMMITTED if complete else BUILD / "partial"


def describe(python: Interpreter, every: Sequence[Interpreter]) -> str:
    vendor = "Debian's " if python.path == DEBIAN else ""
    others = ", ".join(f"{i.version} {i.seconds * 1000:.0f}" for i in every if i is not python)
    return f"{vendor}{python.version}; a simple loop takes {python.seconds * 1000:.0f} ms" + (
        f" (others: {others})" if others else ""
    )


def measured(bench: Bench, chosen: argparse.Namespace, facts: dict[str, str]) -> Path:
    started = time.monotonic()
    before = machine.load()
    done = [*rounds(bench, chosen.only, chosen.rounds, chosen.scale)]
    facts["load average"] = f"{before} before, {machine.load()} after"
    facts["rounds"] = f"{chosen.rounds}, scale {chosen.scale:g}"
    facts["taken"] = f"{(time.monotonic() - started) / 60:.0f} minutes"
    return write(Run(done, facts, bench.versions(), bench.skipped), output_folder(chosen))


def main() -> None:
    chosen = arguments()
    if chosen.quick:
        chosen.rounds, chosen.scale = 1, QUICK
    python, every = machine.fastest()
    facts = {"processor": machine.processor(), "Python": describe(python, every)}
    log(f"Python: {facts['Python']}")
    bench = Bench(python)
    try:
        bench.build(tuple(chosen.peers))
    except subprocess.CalledProcessError as error:
        text = (error.stderr or b"").decode()
        raise SystemExit(f"{' '.join(map(str, error.cmd))} failed:\n{text}") from None
    for name, why in bench.skipped.items():
        log(f"{name} is missing: {why}")
    only = chosen.profile or chosen.growth
    if chosen.quick or not only:
        log(f"written: {measured(bench, chosen, facts)}")
    partial = BUILD / "partial"
    if chosen.profile or chosen.quick:
        out = partial if chosen.quick else chosen.out or COMMITTED
        log(f"written: {profile(bench, chosen.scale, out)}")
    if chosen.growth or chosen.quick:
        out = partial if chosen.quick else chosen.out or COMMITTED
        picture = partial / "growth.svg" if chosen.quick else ROOT / "docs" / "growth.svg"
        log(f"written: {grow(bench, min(3, chosen.rounds), chosen.scale, out, picture)}")


if __name__ == "__main__":
    main()
