"""Base class of the four gRPC services.

Each method of a service is one RPC: decode, find the instance, call the author's code, encode. An
exception of the author's code becomes the response of that query or call. A service's module and
its messages are imported at its first call (see application.py).
"""

import time
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import betterproto2

from aiostream_ds._author_code import contained
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana import conversion
from aiostream_ds._grafana.instance import InstanceFailed
from aiostream_ds._grafana.instances import Instances
from aiostream_ds._grpc.decode import Decoder
from aiostream_ds._grpc.methods import Method, RequestDecoder
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import PluginError, unwrap

if TYPE_CHECKING:
    from aiostream_ds._grafana.replay import RowReplay

__all__ = ["Service"]

log = get_logger(__name__)


class Service:
    """One gRPC service. `decoders` is shared by all services."""

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
        """Reads histories and replays rows for exact panels."""
        from aiostream_ds._grafana.replay import RowReplay  # a health check does not need it

        return RowReplay(self.registry, self.counters)

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        raise NotImplementedError

    def decoder(
        self, request: type[betterproto2.Message], fields: Collection[str] | None = None
    ) -> RequestDecoder:
        """The decoder of this request class; with `fields`, of these only."""
        return Decoder(request, self._decoders, fields)

    def counted(self, endpoint: str) -> "_CountedCall":
        """A context manager that counts and times one call of this endpoint, and contains what the
        author's code raises in it."""
        return _CountedCall(self.counters, endpoint)

    def refusal_status(self, error: Exception, path: str) -> str:
        """The status for a refused subscription or publication. Logs the error.

        Raises GRPCError for an error that has no such status.
        """
        self.log_error(error, "channel", path)
        inner = unwrap(error)
        if isinstance(inner, PluginError) and inner.subscribe_status:
            return inner.subscribe_status
        raise conversion.grpc_error(inner) from None

    def log_error(self, error: Exception, what: str, name: str) -> conversion.ErrorResponse:
        """Log an error, an author's bug with its traceback. Return the response to it."""
        response = conversion.error_response(error)
        if isinstance(error, InstanceFailed):
            log.error("%s %r failed: %s", what, name, response.message)
        elif response.is_bug:
            log.error("%s %r failed", what, name, exc_info=error)
        else:
            cause = unwrap(error).__cause__
            log.info("%s %r: %s", what, name, response.message, exc_info=cause)
        return response


class _CountedCall:
    """Counts and times one call, with `ok` or the source of its error as the status."""

    __slots__ = ("_counters", "_endpoint", "_started")

    def __init__(self, counters: Counters, endpoint: str) -> None:
        self._counters = counters
        self._endpoint = endpoint

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        failure = None if error is None else contained(error)
        if error is None:
            status = "ok"
        elif failure is None:
            status = "cancelled"
        else:
            inner = unwrap(failure)
            status = inner.source if isinstance(inner, PluginError) else "plugin"
        self._counters.count_request(self._endpoint, status, time.perf_counter() - self._started)
        try:
            if failure is not None and failure is not error:
                raise failure
        finally:
            del failure, error  # error → traceback → this frame → error would be a cycle
