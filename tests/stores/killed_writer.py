"""A process that appends numbered rows of several clients until it is killed, and prints what was
acknowledged: `python killed_writer.py DIRECTORY CLIENTS NEXT…`, the first number of each client.
"""

import asyncio
import sys
from itertools import count

from aiostream_ds.stores import Retention, SqliteStore

BATCH = 7


async def push(store: SqliteStore, client: int, start: int) -> None:
    for first in count(start, BATCH):
        rows = [{"time": n, "client": client, "n": n} for n in range(first, first + BATCH)]
        await store.append("all" if client % 2 else f"c{client}", rows, key=f"{client}-{first}")
        sys.stdout.write(f"{client} {first + BATCH}\n")
        sys.stdout.flush()


async def main(directory: str, starts: list[int]) -> None:
    async with SqliteStore(directory, retention=Retention(rows=10**9)) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as tasks:
            for client, start in enumerate(starts):
                tasks.create_task(push(store, client, start))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], list(map(int, sys.argv[2:]))))
