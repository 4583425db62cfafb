"""Diagnostics: "Save & test" and the metrics of the process."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from aiostream_ds._author_threads import call_method, threads_of
from aiostream_ds._grafana.conversion import MESSAGE_LIMIT
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, unary
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._redaction import redact_json, redact_start
from aiostream_ds._short_repr import short_repr
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.datasource import DataSource
from aiostream_ds.models import Health

if TYPE_CHECKING:
    from aiostream_ds._grafana.shared_streams import SharedStreams

__all__ = ["DiagnosticsService"]


class DiagnosticsService(Service):
    """Answers `pluginv2.Diagnostics`."""

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        return {
            "/pluginv2.Diagnostics/CheckHealth": unary(
                self.check_health, self.decoder(pb.CheckHealthRequest), pb.CheckHealthResponse
            ),
            "/pluginv2.Diagnostics/CollectMetrics": unary(
                self.collect_metrics,
                self.decoder(pb.CollectMetricsRequest),
                pb.CollectMetricsResponse,
            ),
        }

    async def check_health(
        self, request: pb.CheckHealthRequest, call: Call
    ) -> pb.CheckHealthResponse:
        """Answer "Save & test" with the author's `health`."""
        health = pb.CheckHealthResponseHealthStatus
        try:
            with self.counted("checkHealth"):
                instance = await self.instances.get(request.plugin_context)
                answer = await call_method(instance.source, "health")
                _check(answer)
                answer = _with_problems(answer, instance)
                return pb.CheckHealthResponse(
                    status=health.OK if answer.ok else health.ERROR,
                    message=redact_start(answer.message, MESSAGE_LIMIT),
                    json_details=_redacted_json(answer.details) if answer.details else b"",
                )
        except Exception as error:
            response = self.log_error(error, "health", "")
            return pb.CheckHealthResponse(status=health.ERROR, message=response.message)

    async def collect_metrics(
        self, request: pb.CollectMetricsRequest, call: Call
    ) -> pb.CollectMetricsResponse:
        """Answer with all metrics in the Prometheus text format."""
        from aiostream_ds._grafana.metrics import Gauges, exposition  # imported when first needed

        gauges = Gauges.of(self.registry, self.instances.cluster)
        text = await run_in_thread(exposition, gauges, self.counters)
        return pb.CollectMetricsResponse(metrics=pb.CollectMetricsResponsePayload(prometheus=text))


def _check(answer: object) -> None:
    """Raises TypeError for what is not a Health, or for one with attributes of other types."""
    if not isinstance(answer, Health):
        raise TypeError(
            f"health must return a Health, as Health(message=…), got {short_repr(answer)}"
        )
    if isinstance(answer.ok, str):  # anything else has a truth value, as numpy's bool
        raise TypeError(f"Health.ok must be a bool, got {answer.ok!r}; use Health(message=…)")
    for name, kind in (("message", str), ("details", dict)):
        value = getattr(answer, name)
        if not isinstance(value, kind):
            raise TypeError(f"Health.{name} must be a {kind.__name__}, got {short_repr(value)}")


def _with_problems(health: Health, instance: Instance) -> Health:
    """The author's answer and what the runtime knows of the data source."""
    source = instance.source
    threads, tasks = threads_of(source), source.tasks.problems
    problems = [*tasks, threads.problem] if threads.problem else [*tasks]
    if _shares_streams(source):
        problems += [f"streams are not shared: {why}" for why in _sharing_problems(instance)]
    if not problems:
        return health
    is_ok = health.ok and not threads.abandoned and not tasks
    return replace(health, ok=is_ok, message="; ".join([health.message, *problems]))


def _shares_streams(source: DataSource[Any]) -> bool:
    return any(
        source._is_shared(stream.options.share) for stream in source._ds_plan.streams.values()
    )


def _sharing_problems(instance: Instance) -> list[str]:
    shared: SharedStreams | None = instance.cluster
    problem = shared.why_not_shared if shared is not None else instance.sharing_problem
    return [problem] if problem else []


def _redacted_json(details: dict[str, Any]) -> bytes:
    plain = msgspec.json.decode(msgspec.json.encode(details))
    return msgspec.json.encode(redact_json(plain))
