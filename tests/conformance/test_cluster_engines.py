"""Failures of the engine under three Go hosts: a failover, a server that stalls, an evicted log, a
clock that is set back; two versions of a plugin; publishing. Exact panels miss and double nothing.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from tests.cluster.redis.engines import (
    NAMESPACE,
    EngineClusterNode,
    EngineRedis,
    EngineReplica,
)
from tests.exact.client import CallFailed
from tests.requirements import require
from tests.servers import Nats, Redis
from tests.servers import redis as redis_server
from tests.servers.redis import RedisSentinel, redis_cluster

from .cluster_stage import PLUGIN, Stage, open_stage

pytestmark = [pytest.mark.go, pytest.mark.slow, pytest.mark.timeout(240)]

NAMES = ["c0", "c1", "c2"]
IN_NAMESPACE = {"GF_PLUGIN_CLUSTER_NAME": NAMESPACE}
OLDER = PLUGIN.with_name("shared_older.py")
CLOCK_SOURCE = Path(redis_server.__file__).with_name("shifted_clock.c")


def login_url(server: Redis, scheme: str, hosts: str) -> str:
    """Of the user who has the rights that docs/cluster.md asks for."""
    return f"{scheme}://{server.reader}:{server.reader_password}@{hosts}"


def url_of(server: Redis | Nats) -> str:
    if isinstance(server, Nats):
        return server.url
    return login_url(server, "redis", f"127.0.0.1:{server.port}")


async def is_exact_after(stage: Stage, fault: Callable[[], Awaitable[object]]) -> None:
    """Nothing is missing or doubled in any drawing, and each channel has one run afterwards."""
    stage.open_panels(len(NAMES))
    await stage.wait_until_shared(NAMES)
    await anyio.sleep(1)
    before = stage.upstream.last
    await fault()
    await stage.wait_until(
        lambda: all(isinstance(p.cursor, int) and p.cursor > before + 10 for p in stage.panels), 60
    )
    await stage.end()
    await stage.wait_until_shared(NAMES)
    assert stage.judge.tally.drawings > 30 and stage.judge.tally.exact


@contextmanager
def sentinels() -> Iterator[tuple[EngineRedis, RedisSentinel]]:
    with (
        EngineRedis() as primary,
        EngineReplica(primary),
        RedisSentinel(primary) as sentinel,
    ):
        yield primary, sentinel


async def test_sentinel_promotes_a_replica(host_binary):
    with sentinels() as (primary, sentinel):
        url = login_url(primary, "redis+sentinel", f"127.0.0.1:{sentinel.port}/mymaster")
        login = IN_NAMESPACE | {"GF_PLUGIN_CLUSTER_SENTINEL_PASSWORD": sentinel.password}

        def knows_the_replica() -> bool:
            answer = sentinel.call("SENTINEL", "MASTER", sentinel.primary_name)
            return b"num-slaves\r\n$1\r\n1" in answer

        async with open_stage(host_binary, url, 10, login) as stage:
            await stage.wait_until(knows_the_replica, 30)
            await is_exact_after(stage, lambda: asyncio.to_thread(primary.kill))


async def test_a_cluster_of_redis_promotes_a_replica(host_binary):
    with redis_cluster(3, EngineClusterNode, replicas=1) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = login_url(nodes[0], "redis+cluster", hosts)
        async with open_stage(host_binary, url, 10, IN_NAMESPACE) as stage:
            await is_exact_after(stage, lambda: asyncio.to_thread(nodes[0].kill))


@pytest.mark.parametrize("seconds", [1, 4])
async def test_a_server_that_stalls(host_binary, seconds):
    with EngineRedis() as server:
        server.extra = {"enable-debug-command": "local"}
        server.restart()

        async def stall() -> None:
            with anyio.CancelScope(), server.connect() as connection:
                connection.sendall(b"AUTH %s\r\n" % server.password.encode())
                connection.recv(64)
                connection.sendall(b"DEBUG SLEEP %d\r\n" % seconds)
                connection.settimeout(seconds + 10)
                await asyncio.to_thread(connection.recv, 64)

        async with open_stage(host_binary, url_of(server), 10, IN_NAMESPACE) as stage:
            await is_exact_after(stage, stall)


@pytest.mark.parametrize("how", ["memory", "deleted logs", "everything"])
async def test_evicted_logs(host_binary, how):
    with EngineRedis() as server:

        def evict() -> None:
            if how == "everything":
                assert server.call("FLUSHALL").startswith(b"+OK")
            elif how == "deleted logs":
                script = "return redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))"
                assert server.call("EVAL", script, 0, f"{NAMESPACE}:*log:*numbers*") != b":0\r\n"
            else:
                server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
                server.call("CONFIG", "SET", "maxmemory", 1_000)  # all keys are too many
                server.call("CONFIG", "SET", "maxmemory", 0)
                assert b"evicted_keys:0" not in server.call("INFO", "stats")

        async with open_stage(host_binary, url_of(server), 10, IN_NAMESPACE) as stage:
            await is_exact_after(stage, lambda: asyncio.to_thread(evict))


class ClockedRedis(EngineRedis):
    """A server whose clock can be set."""

    def command(self) -> list[str]:
        library = self.folder / "clock.so"
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(CLOCK_SOURCE)]
        subprocess.run(build, check=True)
        self.set_clock(0)
        words = [f"LD_PRELOAD={library}", f"SHIFTED_CLOCK_FILE={self._shift}"]
        return ["/usr/bin/env", *words, *super().command()]

    @property
    def _shift(self) -> Path:
        return self.folder / "clock.shift"

    def set_clock(self, seconds: int) -> None:
        """Set the clock to the right time and so many seconds."""
        data = seconds.to_bytes(8, "little", signed=True)
        if self._shift.exists():
            with self._shift.open("r+b") as file:  # the server has this file in memory
                file.write(data)
        else:
            self._shift.write_bytes(data)


@pytest.mark.parametrize("seconds", [-3_600, -2, 3_600])
async def test_the_clock_of_the_server_is_set(host_binary, seconds):
    require("cc", shutil.which("cc") is not None, "no C compiler is installed")
    with ClockedRedis() as server:

        async def set_clock() -> None:
            before = int(server.call("TIME").split()[2])
            server.set_clock(seconds)
            assert abs(int(server.call("TIME").split()[2]) - before - seconds) < 30

        async with open_stage(host_binary, url_of(server), 10, IN_NAMESPACE) as stage:
            await is_exact_after(stage, set_clock)


@pytest.mark.parametrize("kind", [Redis, Nats])
async def test_versions_with_another_format_do_not_share(host_binary, kind):
    """As during an update, server by server: each version has one run of a channel."""
    with EngineRedis() if kind is Redis else Nats() as server:
        name = {} if kind is Nats else IN_NAMESPACE
        async with open_stage(
            host_binary, url_of(server), 10, name, plugins=(PLUGIN, PLUGIN, OLDER)
        ) as stage:
            stage.open_panels(len(NAMES))
            await stage.wait_until_shared(NAMES, runs=2)
            await stage.nodes[0].kill()
            await stage.wait_until_shared(NAMES, runs=2)
            await anyio.sleep(2)
            await stage.end()
            await stage.wait_until_shared(NAMES, runs=2)
            assert stage.judge.tally.exact


@pytest.mark.parametrize("kind", [Redis, Nats])
async def test_what_is_published_at_each_server_is_seen_at_all_once(host_binary, kind):
    with EngineRedis() if kind is Redis else Nats() as server:
        name = {} if kind is Nats else IN_NAMESPACE
        async with open_stage(host_binary, url_of(server), 10, name) as stage:
            seen: list[list[str]] = [[] for _ in stage.nodes]
            for texts, node in zip(seen, stage.nodes, strict=True):

                def receive(packet: dict[str, dict[str, list[list[str]]]], texts=texts) -> None:
                    texts.extend((packet["data"]["values"] or [[]])[-1])

                await node.subscribe("chat", receive)
            with anyio.fail_after(60):
                while not all(seen):  # all have joined
                    await stage.nodes[0].publish("chat", "first")
                    await anyio.sleep(0.5)
            for number in range(30):
                assert await stage.nodes[number % 3].publish("chat", f"m{number}") == "OK"
            expected = [f"m{number}" for number in range(30)]
            await stage.wait_until(lambda: all("m29" in texts for texts in seen), 20)
            await anyio.sleep(1)
            assert [[t for t in texts if t.startswith("m")] for texts in seen] == [expected] * 3


async def test_the_owner_of_a_stream_is_killed_while_others_publish(host_binary):
    """What is acknowledged is seen at most once, and publishing works again after a takeover."""
    with EngineRedis() as server:
        async with open_stage(host_binary, url_of(server), 10, IN_NAMESPACE) as stage:
            seen: list[str] = []

            def receive(packet: dict[str, dict[str, list[list[str]]]]) -> None:
                seen.extend((packet["data"]["values"] or [[]])[-1])

            for node in stage.nodes[:2]:
                await node.subscribe("chat", lambda packet: None)
            await stage.nodes[2].subscribe("chat", receive)
            with anyio.fail_after(60):
                while not seen:
                    await stage.nodes[2].publish("chat", "first")
                    await anyio.sleep(0.5)
            for node in stage.nodes[:2]:
                os.kill(node.pid, signal.SIGKILL)
            last, number = "", 0
            with anyio.fail_after(60):
                while last not in seen or not last:
                    number += 1
                    with contextlib.suppress(CallFailed):  # its server was killed meanwhile
                        if await stage.nodes[2].publish("chat", f"m{number}") == "OK":
                            last = f"m{number}"
                    await anyio.sleep(0.3)
            assert len(set(seen) - {"first"}) == len([each for each in seen if each != "first"])
