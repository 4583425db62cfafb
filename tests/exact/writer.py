"""The upstream process of real-time tests: appends numbered NDJSON rows to files.

    python writer.py HERTZ SECONDS FILE…

Each file begins with rows of the last SECONDS and grows until standard input ends. Two rows
have one time, and "seq" counts them. "log" is the file's path, to distinguish rows of two files;
"value" is a curve for pictures.
"""

import json
import math
import select
import sys
import time
from pathlib import Path

PAIR = 2  # rows of one time


def main(hertz: float, before: float, *paths: str) -> None:
    files = [Path(path).open("ab", buffering=0) for path in paths]
    number = ms = seq = 0

    def append(now: float) -> None:
        nonlocal number, ms, seq
        for _ in range(PAIR):
            number += 1
            seq = seq + 1 if round(now * 1000) <= ms else 0
            ms = max(ms, round(now * 1000))
            value = round(math.sin(number / 60) + math.sin(number / 17) / 3, 3)
            for path, file in zip(paths, files, strict=True):
                row = {"time": ms, "seq": seq, "n": number, "log": path, "value": value}
                file.write(json.dumps(row).encode() + b"\n")

    start = time.time()
    interval = PAIR / hertz
    for i in range(round(before / interval)):
        append(start - before + i * interval)
    print("ready", flush=True)
    due = time.time()
    while True:
        now = time.time()
        append(now)
        due = max(due + interval, now)
        if select.select([sys.stdin], [], [], max(0.0, due - time.time()))[0]:
            return


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
