"""The source `websocket`: messages of a WebSocket."""

from aiostream_ds.sources.websocket.websocket_source import WebSocket, WebSocketSettings

__all__ = ["WebSocket", "WebSocketSettings"]
