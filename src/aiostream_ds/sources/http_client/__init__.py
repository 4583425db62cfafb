"""What the sources `http` and `websocket` share: a client over aiohttp, templates, outages."""
