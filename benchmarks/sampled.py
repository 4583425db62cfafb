"""Runs a plugin and notes, 1,000 times a second of its processor time, which stage it is at.

sampled.py PROGRAM, with PEER_SAMPLES naming the JSON file that is written at the end. The stage is
that of the innermost Python frame of a file that one knows: what a C library does counts for its
caller. Standard library only, and nothing of the project: it is the measured program that imports.
"""

import json
import os
import runpy
import signal
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

START = "start and imports"

STAGES = (
    ("/benchmarks/peer.py", "the author's code"),
    ("/aiostream_ds/_frames/frame.py", "rows and frames"),
    ("/aiostream_ds/_frames/columns.py", "rows and frames"),
    ("/aiostream_ds/_frames/times.py", "rows and frames"),
    ("/aiostream_ds/models.py", "rows and frames"),
    ("/aiostream_ds/_frames/", "encoding"),
    ("/aiostream_ds/_channels/", "channels and subscriptions"),
    ("/aiostream_ds/_streams/", "driving the author's generator"),
    ("/aiostream_ds/_encoding/", "rows and frames"),
    ("/aiostream_ds/_http2/", "calls, framing, HTTP/2"),
    ("/aiostream_ds/_grpc/", "calls, framing, HTTP/2"),
    ("/aiostream_ds/_grafana/", "calls, framing, HTTP/2"),
    ("/grpclib/", "calls, framing, HTTP/2"),
    ("/h2/", "calls, framing, HTTP/2"),
    ("/hpack/", "calls, framing, HTTP/2"),
    ("/asyncio/selector_events.py", "calls, framing, HTTP/2"),
    ("/asyncio/", "event loop"),
    ("/selectors.py", "event loop"),
    ("/anyio/", "event loop"),
    ("/aiostream_ds/", "rest of the project"),
)
"""Part of a file's path → its stage; the first that fits."""

INTERVAL = 0.001  # s; the kernel may make it 4 ms

_known: dict[CodeType, str] = {}
_stages: Counter[str] = Counter()
_functions: Counter[tuple[str, str]] = Counter()


def stage_of(code: CodeType) -> str:
    """The stage of a file that one knows, else ""."""
    found = _known.get(code)
    if found is None:
        path = code.co_filename.replace(os.sep, "/")
        found = next((stage for part, stage in STAGES if part in path), "")
        _known[code] = found
    return found


def note(signum: int, frame: FrameType | None) -> None:
    stage, place, running = "", "", False
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib"):
            stage, place, running = START, "", True
            break
        if not stage and (stage := stage_of(code)):
            place = f"{os.path.basename(code.co_filename)}: {code.co_name}"
        running = running or code.co_name == "run_until_complete" or "uvloop" in code.co_filename
        frame = frame.f_back
    if not running:
        stage, place = START, ""
    _stages[stage or "other"] += 1
    _functions[stage or "other", place] += 1


def write(path: str) -> None:
    functions = [(*key, count) for key, count in _functions.most_common(25)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"stages": dict(_stages), "functions": functions}, file)


def main(program: str) -> None:
    path, leave = os.environ["PEER_SAMPLES"], os._exit

    def written(status: int) -> Any:
        signal.setitimer(signal.ITIMER_PROF, 0)
        write(path)
        leave(status)

    os._exit = written  # a plugin ends by it, and runs no atexit functions then
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # it keeps signals for itself
    signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
