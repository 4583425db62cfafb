"""Redis Streams: the entries of a stream, with history, exactly once in a panel. Needs redis.

Try it:  aiostream-ds dev examples/redis_streams.py --path entries/orders --set url=redis://localhost
"""

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError

import aiostream_ds as ds

START = "0-0"  # before the first entry


class Server(ds.Settings):
    url: str
    password: ds.Secret = ds.secret()


def to_row(entry: tuple[str, dict[str, str]]) -> dict[str, Any]:
    id, fields = entry
    row = {"time": int(id.partition("-")[0]), "id": id}
    return row | {name: value(text) for name, text in fields.items()} | row  # fields give way


def value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class RedisStreams(ds.DataSource[Server]):
    declared_errors = {AuthenticationError: ds.ConfigError, (RedisError, OSError): ds.UpstreamError}

    def lifespan(self) -> Redis:
        password = self.settings.password.reveal() or None
        self.redis: Any = Redis.from_url(  # each stream waits in a connection
            self.settings.url, password=password, decode_responses=True, max_connections=10_000
        )
        return self.redis

    async def health(self) -> ds.Health:
        info = await self.redis.info("server")
        return ds.Health(message=f"connected to Redis {info['redis_version']}")

    @ds.stream(cursor="id", schema=ds.SchemaPolicy(conflict="text"))
    async def entries(self, after: ds.Cursor[str], name: str) -> ds.Rows:
        last = after.value or START
        while True:
            for _, found in await self.redis.xread({name: last}, count=1_000, block=2_000):
                yield [to_row(entry) for entry in found]
                last = found[-1][0]

    @entries.last
    async def newest(self, name: str) -> str | None:
        found = await self.redis.xrevrange(name, count=1)
        return found[0][0] if found else None

    @entries.history
    async def read(self, wanted: ds.HistoryRange[str], name: str) -> ds.HistoryPage[str]:
        if wanted.after is None:
            start, end = (int(at.timestamp() * 1000) for at in (wanted.start, wanted.end))
            found = await self.redis.xrevrange(name, end, start, wanted.limit)
            return ds.HistoryPage([to_row(entry) for entry in reversed(found)])
        after, upto = wanted.after or START, wanted.upto or "+"
        found = await self.redis.xrange(name, f"({after}", upto, wanted.limit)
        oldest = await self.redis.xrange(name, count=1)  # a trimmed stream has lost older ones
        first = oldest[0][0] if oldest and wanted.after else None
        return ds.HistoryPage([to_row(entry) for entry in found], first=first)


if __name__ == "__main__":
    ds.serve(RedisStreams)
