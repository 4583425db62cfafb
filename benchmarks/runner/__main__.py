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
from .rounds import rounds, tell

COMMITTED = ROOT / "benchmarks"
QUICK = 0.02


def listed(known: Sequence[str]) -> "type[tuple[str, ...]]":
    """A type for argparse: names of `known`, with commas between them."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(filter(None, text.split(",")))
        if strange := [name for name in names if name not in known]:
            problem = f"{', '.join(strange)}: there are {', '.join(known)}"
            raise argparse.ArgumentTypeError(problem)
        return names

    return parse  # type: ignore[return-value]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures ours against its peers, in turn, and writes benchmarks/results.md.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads")
    parser.add_argument("--only", type=listed(WORKLOADS), default=WORKLOADS, metavar="W1,W2")
    parser.add_argument("--peers", type=listed(PEERS), default=PEERS, metavar="P1,P2")
    parser.add_argument("--profile", action="store_true", help="only: where a packet's time goes")
    parser.add_argument("--growth", action="store_true", help="only: the picture docs/growth.svg")
    parser.add_argument(
        "--quick", action="store_true", help="everything once and small, to see it run"
    )
    parser.add_argument("--out", type=Path, help="a folder for the results")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.scale <= 0:
        parser.error("--rounds must be 1 or more, --scale above 0")
    return chosen


def place(chosen: argparse.Namespace) -> Path:
    """Only whole runs go where results are committed."""
    if chosen.out is not None:
        return Path(chosen.out)
    whole = (
        chosen.rounds >= 5
        and chosen.scale >= 1
        and not chosen.quick
        and set(chosen.only) == set(WORKLOADS)
        and set(chosen.peers) == set(PEERS)
    )
    return COMMITTED if whole else BUILD / "partial"


def describe(python: Interpreter, every: Sequence[Interpreter]) -> str:
    whose = "Debian's " if python.path == DEBIAN else ""
    others = ", ".join(f"{i.version} {i.seconds * 1000:.0f}" for i in every if i is not python)
    return f"{whose}{python.version}; a plain loop took it {python.seconds * 1000:.0f} ms" + (
        f" (others here: {others})" if others else ""
    )


def measured(bench: Bench, chosen: argparse.Namespace, facts: dict[str, str]) -> Path:
    began = time.monotonic()
    before = machine.load()
    done = [*rounds(bench, chosen.only, chosen.rounds, chosen.scale)]
    facts["load average"] = f"{before} before, {machine.load()} after"
    facts["rounds"] = f"{chosen.rounds}, scale {chosen.scale:g}"
    facts["taken"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    return write(Run(done, facts, bench.versions(), bench.skipped), place(chosen))


def main() -> None:
    chosen = arguments()
    if chosen.quick:
        chosen.rounds, chosen.scale = 1, QUICK
    python, every = machine.fastest()
    facts = {"processor": machine.processor(), "Python": describe(python, every)}
    tell(f"Python: {facts['Python']}")
    bench = Bench(python)
    try:
        bench.build(tuple(chosen.peers))
    except subprocess.CalledProcessError as error:
        text = (error.stderr or b"").decode()
        raise SystemExit(f"{' '.join(map(str, error.cmd))} failed:\n{text}") from None
    for name, why in bench.skipped.items():
        tell(f"{name} is missing: {why}")
    only = chosen.profile or chosen.growth
    if chosen.quick or not only:
        tell(f"written: {measured(bench, chosen, facts)}")
    aside = BUILD / "partial"
    if chosen.profile or chosen.quick:
        out = aside if chosen.quick else chosen.out or COMMITTED
        tell(f"written: {profile(bench, chosen.scale, out)}")
    if chosen.growth or chosen.quick:
        out = aside if chosen.quick else chosen.out or COMMITTED
        picture = aside / "growth.svg" if chosen.quick else ROOT / "docs" / "growth.svg"
        tell(f"written: {grow(bench, min(3, chosen.rounds), chosen.scale, out, picture)}")


if __name__ == "__main__":
    main()
