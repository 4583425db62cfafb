"""The upstream process of real-time tests: appends numbered NDJSON rows to files.

    python writer.py HERTZ SECONDS FILE…

Each file begins with rows of the last SECONDS and grows until standard input ends. The field "log"
is the file's path, to distinguish rows of two files; "value" is a curve for pictures.
"""

import json
import math
import select
import sys
import time
from pathlib import Path


def main(hertz: float, before: float, *paths: str) -> None:
    files = [Path(path).open("ab", buffering=0) for path in paths]
    numbers = [0] * len(files)

    def append(now: float) -> None:
        for i, file in enumerate(files):
            numbers[i] += 1
            value = round(math.sin(numbers[i] / 60) + math.sin(numbers[i] / 17) / 3, 3)
            row = {"time": round(now * 1000), "n": numbers[i], "log": paths[i], "value": value}
            file.write(json.dumps(row).encode() + b"\n")

    start = time.time()
    for i in range(round(before * hertz)):
        append(start - before + i / hertz)
    print("ready", flush=True)
    due = time.time()
    while True:
        now = time.time()
        append(now)
        due = max(due + 1 / hertz, now)
        if select.select([sys.stdin], [], [], max(0.0, due - time.time()))[0]:
            return


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:])
