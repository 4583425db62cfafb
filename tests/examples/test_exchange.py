"""The exchange example with a real WebSocket server, which is stopped and started again."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from itertools import count
from time import time
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from aiostream_ds.testing import serve_in_memory

from .loading import load

exchange = load("exchange")
TOKEN = "swordfish"
REFUSED = "server rejected WebSocket connection: HTTP 401"
SYMBOLS = ("ABC", "DEF", "GHI", "JKL", "MNO")


class Exchange:
    """500 trades a second, one symbol after the other, to the clients that have asked for them."""

    def __init__(self) -> None:
        self.port = 0
        self.trades: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._clients: dict[ServerConnection, set[str]] = {}
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = await serve(
            self._talk, "127.0.0.1", self.port, process_request=self._check, compression=None
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def trade(self) -> None:
        for number in count():
            symbol = SYMBOLS[number % len(SYMBOLS)]
            trade = {"time": int(time() * 1000), "symbol": symbol}
            trade |= {"price": 100 + number % 17 / 4, "size": 1 + number % 3}
            for client, symbols in tuple(self._clients.items()):
                if symbol in symbols:
                    self.trades[symbol].append(trade)
                    with contextlib.suppress(ConnectionClosed):
                        await client.send(json.dumps(trade))
            await asyncio.sleep(1 / 500)

    def _check(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            return socket.respond(HTTPStatus.UNAUTHORIZED, "wrong token")
        return None

    async def _talk(self, socket: ServerConnection) -> None:
        symbols = self._clients[socket] = set()
        with contextlib.suppress(ConnectionClosed):
            async for text in socket:
                message = json.loads(text)
                symbols.update(message.get("subscribe", "").split())
                symbols.difference_update(message.get("unsubscribe", "").split())
        del self._clients[socket]


@asynccontextmanager
async def trading() -> AsyncIterator[Exchange]:
    server = Exchange()
    await server.start()
    trades = asyncio.create_task(server.trade())
    try:
        yield server
    finally:
        trades.cancel()
        await asyncio.wait([trades])
        await server.stop()


def serving(server: Exchange, token: str = TOKEN):
    settings = {"url": f"ws://127.0.0.1:{server.port}"}
    return serve_in_memory(exchange.Market, settings=settings, secrets={"token": token})


def bar_of(trades: list[dict[str, Any]]) -> dict[str, Any]:
    prices = [trade["price"] for trade in trades]
    volume = sum(trade["size"] for trade in trades)
    worth = sum(trade["price"] * trade["size"] for trade in trades)
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "vwap": pytest.approx(worth / volume),
    }


@pytest.mark.slow
async def test_bars_are_those_of_the_trades_of_their_symbol():
    async with trading() as server, serving(server) as grafana:
        abc, ghi = await grafana.follow("bars/ABC/1"), await grafana.follow("bars/GHI/2")
        bars = [*(await abc.take(3))[1:], *(await ghi.take(2))[1:]]  # the first began within
    for symbol, seconds, bar in zip(("ABC", "ABC", "GHI"), (1, 1, 2), bars, strict=True):
        start = bar.pop("time")
        end = start + seconds * 1000
        assert bar == bar_of([t for t in server.trades[symbol] if start <= t["time"] < end])


@pytest.mark.slow
async def test_trades_and_bars_go_on_after_the_exchange_was_restarted():
    async with trading() as server, serving(server) as grafana:
        trades, bars = await grafana.follow("trades/ABC"), await grafana.follow("bars/ABC/1")
        await trades.take(50)
        await server.stop()
        await server.start()
        restarted = int(time() * 1000)
        while (await trades.next())["time"] < restarted:
            pass
        while (await bars.next())["time"] < restarted:
            pass


async def test_symbols_are_not_mixed():
    async with trading() as server, serving(server) as grafana:
        viewers = [await grafana.follow(f"trades/{symbol}") for symbol in SYMBOLS]
        for symbol, viewer in zip(SYMBOLS, viewers, strict=True):
            assert {row["symbol"] for row in await viewer.take(5)} == {symbol}


async def test_a_wrong_token_is_named_by_save_and_test():
    async with trading() as server:
        async with serving(server) as grafana:
            assert (await grafana.health())[0]
        async with serving(server, "wrong") as grafana:
            is_healthy, text = await grafana.health()
    assert (is_healthy, text) == (False, f"ws://127.0.0.1:{server.port}: {REFUSED}")
