"""The errors that an author may raise or catch, and the HTTP status of each.

    PluginError                  an expected failure, with a message for the user
    ├── BadQuery                 the query or request is invalid                    400
    ├── PermissionDenied         the user lacks the permission                      403
    ├── NotFound                 the path, topic or device does not exist           404
    ├── QuotaExceeded            a limit of the quota is reached                    429
    ├── ConfigError              the settings of the data source are invalid        400
    └── UpstreamError            the upstream system failed; a retry may succeed    502

Any other exception is a bug: it is logged with its traceback and answered with 500 and the error
source "plugin". The errors above have the error source "downstream", Grafana's word for the
upstream system and for the user's input: they do not count as failures of the plugin.
"""

from typing import ClassVar, Literal, TypeVar

__all__ = [
    "BadQuery",
    "ConfigError",
    "NotFound",
    "PermissionDenied",
    "PluginError",
    "QuotaExceeded",
    "UpstreamError",
    "copy_error",
    "unwrap",
]

ErrorT = TypeVar("ErrorT", bound=BaseException)


class PluginError(Exception):
    """Base class of the errors that an author raises on purpose.

    Users see `message`; the `__cause__` is only logged. The class variables map the error to the
    wire. A subclass may set them.
    """

    status: ClassVar[int] = 500
    """HTTP status of a query or resource."""
    source: ClassVar[Literal["plugin", "downstream"]] = "downstream"
    """Grafana's error source."""
    grpc_status: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status."""
    subscribe_status: ClassVar[Literal["NOT_FOUND", "PERMISSION_DENIED", ""]] = ""
    """The answer to a subscription; "": a gRPC error."""
    permanent: ClassVar[bool] = True
    """Whether a retry of the stream cannot succeed."""

    _is_logged: bool = False  # one log line for all streams that get it

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__name__)

    @property
    def message(self) -> str:
        """The text that users see."""
        return str(self.args[0]) if self.args else type(self).__name__


class BadQuery(PluginError):
    """The query or request is invalid. The message should name the bad value and what is valid."""

    status = 400
    grpc_status = "INVALID_ARGUMENT"
    subscribe_status = "NOT_FOUND"


class PermissionDenied(PluginError):
    """The user lacks the permission to read, publish or call this."""

    status = 403
    grpc_status = "PERMISSION_DENIED"
    subscribe_status = "PERMISSION_DENIED"


class NotFound(PluginError):
    """The path, topic or device does not exist."""

    status = 404
    grpc_status = "NOT_FOUND"
    subscribe_status = "NOT_FOUND"


class QuotaExceeded(PluginError):
    """A limit of the quota is reached. Existing channels and subscriptions continue."""

    status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    subscribe_status = "PERMISSION_DENIED"


class ConfigError(PluginError):
    """The settings of the data source are invalid; an admin must change them."""

    status = 400
    grpc_status = "FAILED_PRECONDITION"


class UpstreamError(PluginError):
    """The upstream system failed. A stream is retried as long as it has viewers."""

    status = 502
    grpc_status = "UNAVAILABLE"
    permanent = False


def unwrap(error: BaseException) -> BaseException:
    """The error that an author raised, also from inside of exception groups.

    Of several PluginErrors it is a permanent one, if there is one. A group with any other error in
    it is returned as it is.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [unwrap(each) for each in error.exceptions]
    if len(inner) == 1:
        return inner[0]
    declared = [each for each in inner if isinstance(each, PluginError)]
    if len(declared) < len(inner):
        return error
    return next((each for each in declared if each.permanent), declared[0])


def copy_error(error: ErrorT) -> ErrorT:
    """The same error as a new object without a traceback.

    When several tasks wait for one result, each raises a copy: one object would collect the
    tracebacks of all. A subclass may define its own `__init__`, so it is not called.
    """
    kind = type(error)
    copy = kind.__new__(kind, *error.args)
    vars(copy).update(vars(error))
    copy.__cause__ = error.__cause__
    return copy
