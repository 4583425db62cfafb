"""Every exception that an author may raise or meet, and what each becomes on the wire.

    PluginError                  something that is not a bug: it has a message for the panel
    ├── BadQuery                 what was asked makes no sense                      400
    ├── PermissionDenied         this user may not                                  403
    ├── NotFound                 there is no such path, topic, device               404
    ├── QuotaExceeded            so much may not be followed at a time              429
    ├── ConfigError              the data source's settings cannot work             400
    └── UpstreamError          the outside system failed; it may work in a while  502

"Downstream" is Grafana's wire word for the outside system (the same that we call upstream) and for
the user's input: such an error does not count as a fault of the plugin. Anything else that is
raised is a bug: it is logged with its traceback and answered with 500 and the source "plugin".
Standard library only.
"""

from typing import ClassVar, Literal, TypeVar

__all__ = [
    "BadQuery",
    "ConfigError",
    "UpstreamError",
    "NotFound",
    "PermissionDenied",
    "PluginError",
    "QuotaExceeded",
    "copy_error",
    "unwrap",
]

ErrorT = TypeVar("ErrorT", bound=BaseException)


class PluginError(Exception):
    """Base of the errors that an author declares.

    `message` is shown to the user; what was raised `from` stays in the log. The class variables
    are the mapping to the wire: `status` is an HTTP status, `grpc_status` a gRPC status name,
    `subscribe_status` the answer of a subscription that fails so ("" = a gRPC error instead), and
    `permanent` says that starting the same stream again cannot help.
    """

    status: ClassVar[int] = 500
    source: ClassVar[Literal["plugin", "downstream"]] = "downstream"
    grpc_status: ClassVar[str] = "INTERNAL"
    subscribe_status: ClassVar[Literal["NOT_FOUND", "PERMISSION_DENIED", ""]] = ""
    permanent: ClassVar[bool] = True

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__name__)

    @property
    def message(self) -> str:
        """What the user reads."""
        return str(self.args[0]) if self.args else type(self).__name__


class BadQuery(PluginError):
    """What was asked makes no sense: name the bad value and the allowed one."""

    status = 400
    grpc_status = "INVALID_ARGUMENT"
    subscribe_status = "NOT_FOUND"


class PermissionDenied(PluginError):
    """This user may not read, publish or call this."""

    status = 403
    grpc_status = "PERMISSION_DENIED"
    subscribe_status = "PERMISSION_DENIED"


class NotFound(PluginError):
    """There is no such path, topic or device."""

    status = 404
    grpc_status = "NOT_FOUND"
    subscribe_status = "NOT_FOUND"


class QuotaExceeded(PluginError):
    """More of this may not be followed at a time. What is followed already goes on."""

    status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    subscribe_status = "PERMISSION_DENIED"


class ConfigError(PluginError):
    """The data source's settings cannot work; an admin has to change them."""

    status = 400
    grpc_status = "FAILED_PRECONDITION"


class UpstreamError(PluginError):
    """The outside system failed. In a stream it is retried for as long as someone watches."""

    status = 502
    grpc_status = "UNAVAILABLE"
    permanent = False


def unwrap(error: BaseException) -> BaseException:
    """What an author raised, also out of a task group's groups. Of several declared errors, one
    that lasts; a group with a bug in it stays as it is."""
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
    tracebacks of all. A subclass may have an `__init__` of its own, so it is not called.
    """
    kind = type(error)
    copy = kind.__new__(kind, *error.args)
    vars(copy).update(vars(error))
    copy.__cause__ = error.__cause__
    return copy
