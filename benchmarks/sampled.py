"""Runs a plugin and samples its stage, 1,000 times a second of processor time.

sampled.py PROGRAM; the environment variable PEER_SAMPLES is the JSON file that is written at the
end. The stage is that of the innermost Python frame in a known file, so C code counts for its
caller. Only the standard library is used: the measured program does the imports.
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
    ("/aiostream_ds/rows.py", "rows and frames"),
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
"""Part of a file's path → its stage; the first match counts."""

INTERVAL = 0.001  # s; some kernels round it up to 4 ms

_known: dict[CodeType, str] = {}
_stages: Counter[str] = Counter()
_functions: Counter[tuple[str, str]] = Counter()


def stage_of(code: CodeType) -> str:
    """The stage of the code's file; "" if unknown."""
    found = _known.get(code)
    if found is None:
        path = code.co_filename.replace(os.sep, "/")
        found = next((stage for part, stage in STAGES if part in path), "")
        _known[code] = found
    return found


def sample(signum: int, frame: FrameType | None) -> None:
    stage, function, running = "", "", False
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib"):
            stage, function, running = START, "", True
            break
        if not stage and (stage := stage_of(code)):
            function = f"{os.path.basename(code.co_filename)}: {code.co_name}"
        running = running or code.co_name == "run_until_complete" or "uvloop" in code.co_filename
        frame = frame.f_back
    if not running:
        stage, function = START, ""
    _stages[stage or "other"] += 1
    _functions[stage or "other", function] += 1


def write(path: str) -> None:
    functions = [(*key, count) for key, count in _functions.most_common(25)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"stages": dict(_stages), "functions": functions}, file)


def main(program: str) -> None:
    path, exit = os.environ["PEER_SAMPLES"], os._exit

    def write_and_exit(status: int) -> Any:
        signal.setitimer(signal.ITIMER_PROF, 0)
        write(path)
        exit(status)

    os._exit = write_and_exit  # a plugin ends with os._exit, which runs no atexit functions
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # it handles signals itself
    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
