"""WebSocket: the trades of an exchange, and bars made of them. Needs websockets.

Try it:  aiostream-ds dev examples/exchange.py --path bars/ABC/1 --set url=ws://localhost:8765
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from aiostream_ds import (
    ConfigError,
    DataSource,
    Row,
    Rows,
    Secret,
    Settings,
    Upstream,
    secret,
    serve,
    stream,
)
from aiostream_ds.operators import ohlc


class Exchange(Settings):
    url: str
    token: Secret = secret()


class Trade(Row):
    time: int  # Unix ms
    symbol: str
    price: float
    size: float


class Feed(Upstream[str, Trade]):
    def __init__(self, exchange: Exchange) -> None:
        super().__init__(name=exchange.url)
        self.exchange = exchange

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[ClientConnection]:
        headers = {"Authorization": f"Bearer {self.exchange.token.reveal()}"}
        try:
            async with connect(self.exchange.url, additional_headers=headers) as socket:
                yield socket
        except InvalidStatus as error:
            if error.response.status_code in {401, 403}:
                raise ConfigError(f"{self.name} refuses the token: {error}") from error
            raise

    async def subscribe(self, socket: ClientConnection, symbol: str) -> None:
        await socket.send(msgspec.json.encode({"subscribe": symbol}), text=True)

    async def unsubscribe(self, socket: ClientConnection, symbol: str) -> None:
        await socket.send(msgspec.json.encode({"unsubscribe": symbol}), text=True)

    async def messages(self, socket: ClientConnection) -> AsyncGenerator[tuple[str, Trade]]:
        async for text in socket:
            trade = msgspec.json.decode(text, type=Trade)
            yield trade.symbol, trade


class Market(DataSource[Exchange]):
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with Feed(self.settings) as self.feed:
            yield

    @stream
    async def trades(self, symbol: str) -> Rows[Trade]:
        async with self.feed.follow(symbol) as trades:
            async for trade in trades:
                yield trade

    @stream
    async def bars(self, symbol: str, seconds: int = 1) -> Rows:
        async for bar in ohlc(self.follow(Market.trades, symbol=symbol), seconds, volume="size"):
            yield bar


if __name__ == "__main__":
    serve(Market)
