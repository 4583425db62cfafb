"""A data source that misbehaves on request, for the conformance tests under the Go host."""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from typing import Any

import anyio

from aiostream_ds import (
    Broadcast,
    Buffer,
    DataSource,
    Frame,
    NotFound,
    PermissionDenied,
    Query,
    Request,
    Rows,
    User,
    query,
    resource,
    serve,
    stream,
)

print("printed while the module is imported")


class Lab(DataSource):
    published = Broadcast(buffer=Buffer(rows=100, full="block"))

    def __init__(self) -> None:
        self.runs = 0
        self.finals: list[float] = []

    @resource("counts")
    async def counts(self) -> dict[str, Any]:
        return {"runs": self.runs, "finals": self.finals, "pid": os.getpid()}

    @resource("publish/{n:int}")
    async def publish(self, n: int) -> Any:
        """Publish n rows in a thread, and close the broadcast."""

        def work() -> None:
            for number in range(n):
                self.published.publish({"n": number})

        while not self.published.subscribers:
            await anyio.sleep(0.01)
        await anyio.to_thread.run_sync(work)
        self.published.close()
        return {"dropped": self.published.statistics().dropped}

    @stream("published", buffer=Buffer(full="block"))
    async def publications(self) -> Rows:
        async for row in self.published.subscribe():
            yield row

    @stream("followed/{name}")
    async def followed(self, name: str) -> Rows:
        async for row in self.follow(Lab.shared, name=name):
            yield {"n": row["n"]}

    @resource("pieces/{n:int}")
    async def pieces(self, n: int) -> Any:
        for i in range(n):
            yield b"piece %d\n" % i

    @resource("echo", method="POST")
    async def echo(self, request: Request) -> Any:
        return {"body": request.json(), "user": request.user.login if request.user else None}

    @stream("shared/{name}")
    async def shared(self, name: str) -> Rows:
        self.runs += 1
        number = 0
        try:
            while True:
                yield {"n": number}
                number += 1
                await anyio.sleep(0.02)
        finally:
            self.finals.append(time.time())

    @stream("waits/{name}")
    async def waits(self, name: str) -> Rows:
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("closed/{name}")
    async def closed(self, name: str) -> Rows:
        yield {"n": 1}

    @closed.subscribe
    async def only_ada(self, user: User | None, name: str) -> None:
        if name == "nowhere":
            raise NotFound(name)
        if user is None or user.login != "ada":
            raise PermissionDenied("only for Ada")

    @stream("whole/{n:int}", buffer=Buffer(full="block"))
    async def whole(self, n: int) -> Rows:
        for i in range(n):
            yield {"time": i, "n": i, "text": "x" * 100}

    @stream("newest/{n:int}")
    async def newest(self, n: int) -> Rows:
        for i in range(n):
            yield {"time": i, "n": i, "text": "x" * 100}
            if i % 1000 == 0:
                await anyio.sleep(0.001)

    @stream("prints")
    async def prints(self) -> Rows:
        print("printed by a stream")
        os.write(1, b"written to descriptor 1\n")
        subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
        logging.getLogger("author").warning("x" * 1_000_000)
        logging.getLogger("author").info("a number", extra={"@level": 3, "count": 7})
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("raises")
    async def raises(self) -> Rows:
        try:
            yield {"n": 1}
            await anyio.sleep_forever()
        finally:
            self.finals.append(time.time())
            raise RuntimeError("raised in finally")

    @stream("swallows")
    async def swallows(self) -> Rows:
        self.runs += 1
        yield {"n": 1}
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    @stream("blocks")
    async def blocks(self) -> Rows:
        yield {"n": 1}
        await anyio.sleep(0.01)
        time.sleep(1.2)
        yield {"n": 2}
        await anyio.sleep_forever()

    @stream("breaks/{after:int}")
    async def breaks(self, after: int) -> Rows:
        self.runs += 1
        for n in range(after):
            yield {"n": n}
        raise RuntimeError("the author's bug")

    @stream("child")
    async def child(self) -> Rows:
        process = subprocess.Popen(["sleep", "300"])
        yield {"pid": process.pid}
        await anyio.sleep_forever()

    @query("table")
    async def table(self, q: Query) -> Frame:
        return Frame.from_columns({"name": ["a", "b"], "value": [1, None]})


if __name__ == "__main__":
    serve(Lab)
