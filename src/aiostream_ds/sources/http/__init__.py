"""The source `http`: Server-Sent Events and lines of an HTTP answer that does not end."""

from aiostream_ds.sources.http.http_source import Http, HttpSourceSettings

__all__ = ["Http", "HttpSourceSettings"]
