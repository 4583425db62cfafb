"""Redis Streams: the entries of a stream, with history, exactly once in a panel. Needs redis.

Try it:  aiostream-ds dev examples/redis_streams.py --path entries/orders --set url=redis://localhost
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

from aiostream_ds import (
    ConfigError,
    Cursor,
    DataSource,
    Health,
    HistoryPage,
    HistoryRange,
    Rows,
    SchemaPolicy,
    Secret,
    Settings,
    UpstreamError,
    secret,
    serve,
    stream,
)

Id = tuple[int, int]  # 1700000000000-3 is the fourth entry of its millisecond


class Server(Settings):
    url: str
    password: Secret = secret()


@contextmanager
def declared_errors() -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(f"Redis refuses the login: {error}") from error
    except (RedisError, OSError) as error:
        raise UpstreamError(f"Redis is away: {error}") from error


def to_id(text: str) -> Id:
    ms, seq = text.split("-")
    return int(ms), int(seq)


def to_text(id: Id) -> str:
    return "{}-{}".format(*max(id, (0, 0)))


def to_row(entry: tuple[str, dict[str, str]]) -> dict[str, Any]:
    ms, seq = to_id(entry[0])
    return {"time": ms, "ms": ms, "seq": seq} | {key: value(text) for key, text in entry[1].items()}


def value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class RedisStreams(DataSource[Server]):
    def client(self) -> Any:  # the types of redis leave open whether answers are decoded
        password = self.settings.password.reveal() or None
        return Redis.from_url(self.settings.url, password=password, decode_responses=True)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with self.client() as self.redis:
            yield

    async def health(self) -> Health:
        with declared_errors():
            info = await self.redis.info("server")
        return Health(True, f"connected to Redis {info['redis_version']}")

    @stream(cursor=("ms", "seq"), schema=SchemaPolicy(conflict="text"))
    async def entries(self, after: Cursor[Id], name: str) -> Rows:
        last = to_text(after.value)
        with declared_errors():
            async with self.client() as client:  # of its own: a cancelled XREAD breaks a shared one
                while True:
                    for _, found in await client.xread({name: last}, count=1_000, block=2_000):
                        yield [to_row(entry) for entry in found]
                        last = found[-1][0]

    @entries.last
    async def newest(self, name: str) -> Id | None:
        with declared_errors():
            found = await self.redis.xrevrange(name, count=1)
        return to_id(found[0][0]) if found else None

    @entries.history
    async def read(self, history_range: HistoryRange[Id], name: str) -> HistoryPage[Id]:
        after, limit = history_range.after, history_range.limit
        with declared_errors():
            if after is None:
                start, end = history_range.start.timestamp(), history_range.end.timestamp()
                found = await self.redis.xrevrange(name, int(end * 1000), int(start * 1000), limit)
                return HistoryPage([to_row(entry) for entry in reversed(found)])
            upto = "+" if history_range.upto is None else to_text(history_range.upto)
            found = await self.redis.xrange(name, f"({to_text(after)}", upto, limit)
            oldest = await self.redis.xrange(name, count=1)
        is_trimmed = bool(oldest) and (0, 0) <= after < to_id(oldest[0][0])
        return HistoryPage([to_row(entry) for entry in found], truncated=is_trimmed)


if __name__ == "__main__":
    serve(RedisStreams)
