"""WebSocket: the trades of an exchange, and bars made of them. Needs websockets.

Try it:  aiostream-ds dev examples/exchange.py --path bars/ABC/1 --set url=ws://localhost:8765
"""

from collections.abc import AsyncGenerator

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

import aiostream_ds as ds
from aiostream_ds.operators import ohlc


class Exchange(ds.Settings):
    url: str
    token: ds.Secret = ds.secret()


class Trade(ds.Row):
    time: int  # Unix ms
    symbol: str
    price: float
    size: float


def refused(error: InvalidStatus) -> type[ds.ConfigError] | None:
    """A wrong token: another attempt cannot help."""
    return ds.ConfigError if error.response.status_code in {401, 403} else None


class Feed(ds.Upstream[str, Trade]):
    declared_errors = {InvalidStatus: refused}

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(name=exchange.url)
        self.exchange = exchange

    def connect(self) -> connect:
        headers = {"Authorization": f"Bearer {self.exchange.token.reveal()}"}
        return connect(self.exchange.url, additional_headers=headers)

    async def subscribe(self, socket: ClientConnection, symbol: str) -> None:
        await socket.send(msgspec.json.encode({"subscribe": symbol}), text=True)

    async def unsubscribe(self, socket: ClientConnection, symbol: str) -> None:
        await socket.send(msgspec.json.encode({"unsubscribe": symbol}), text=True)

    async def messages(self, socket: ClientConnection) -> AsyncGenerator[tuple[str, Trade]]:
        async for text in socket:
            trade = msgspec.json.decode(text, type=Trade)
            yield trade.symbol, trade


class Market(ds.DataSource[Exchange]):
    def lifespan(self) -> Feed:
        self.feed = Feed(self.settings)
        return self.feed

    @ds.stream
    async def trades(self, symbol: str) -> ds.Rows[Trade]:
        async for trade in self.feed.follow(symbol):
            yield trade

    @ds.stream
    async def bars(self, symbol: str, seconds: int = 1) -> ds.Rows:
        async for bar in ohlc(self.follow(Market.trades, symbol=symbol), seconds, volume="size"):
            yield bar


if __name__ == "__main__":
    ds.serve(Market)
