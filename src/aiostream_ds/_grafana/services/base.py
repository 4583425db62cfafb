"""What the four services of Grafana have in common: instances, registry, counters and errors.

Each method of a service is one RPC: decode, find the instance, let the author's code answer,
encode. What an author raises becomes the answer of that query or call, never the end of the
process. A service's file, and its messages, are loaded when Grafana first calls it: see
application.py.
"""

import logging
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import betterproto2

from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana import conversion as convert
from aiostream_ds._grafana.instances import Instances
from aiostream_ds._grpc.decode import Decoder
from aiostream_ds._grpc.methods import Method, RequestDecoder
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import PluginError, unwrap

if TYPE_CHECKING:
    from aiostream_ds._grafana.replay import RowReplay

__all__ = ["Service"]

log = logging.getLogger(__name__)


class Service:
    """One service over a set of instances and a registry. `decoders` is shared by all of them."""

    def __init__(
        self,
        instances: Instances,
        registry: ChannelRegistry,
        counters: Counters,
        decoders: dict[type, Any],
    ) -> None:
        self.instances = instances
        self.registry = registry
        self.counters = counters
        self._decoders = decoders

    @cached_property
    def replay(self) -> "RowReplay":
        """What answers exact panels."""
        from aiostream_ds._grafana.replay import RowReplay  # a health check needs none

        return RowReplay(self.registry, self.counters)

    def methods(self) -> Mapping[str, Method]:
        """The service's part of the table that the server answers from."""
        raise NotImplementedError

    def decoder(self, request: type[betterproto2.Message]) -> RequestDecoder:
        """What reads requests of this class."""
        return Decoder(request, self._decoders)

    def counted(self, endpoint: str) -> "_Counted":
        """Counts what runs inside as one call of this endpoint."""
        return _Counted(self.counters, endpoint)

    def refusal(self, error: Exception, path: str) -> str:
        """The status that refuses a subscription or publication. Raises GRPCError for the rest."""
        self.outcome(error, "channel", path)
        inner = unwrap(error)
        if isinstance(inner, PluginError) and inner.subscribe_status:
            return inner.subscribe_status
        raise convert.grpc_error(inner) from None

    def outcome(self, error: Exception, what: str, name: str) -> convert.Outcome:
        """How the error is answered. Logs it, an author's bug with its traceback."""
        failed = convert.outcome(error)
        if failed.bug:
            log.error("%s %r failed", what, name, exc_info=error)
        else:
            cause = unwrap(error).__cause__
            log.info("%s %r: %s", what, name, failed.message, exc_info=cause)
        return failed


class _Counted:
    """Counts one call and how long it took, as `ok` or by the class of what it raised."""

    __slots__ = ("_counters", "_endpoint", "_started")

    def __init__(self, counters: Counters, endpoint: str) -> None:
        self._counters = counters
        self._endpoint = endpoint

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> None:
        if kind is None:
            status = "ok"
        elif not issubclass(kind, Exception):
            status = "cancelled"
        else:
            inner = unwrap(error)
            status = inner.source if isinstance(inner, PluginError) else "plugin"
        self._counters.count_request(self._endpoint, status, time.perf_counter() - self._started)
