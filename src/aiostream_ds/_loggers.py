"""The loggers of the runtime, which an author's configuration of logging cannot silence.

`logging.config.dictConfig` and `fileConfig` disable all loggers that exist and remove the handlers
of the root logger; `logging.basicConfig(force=True)` removes them too. The runtime's records then
go to the runtime's handlers directly. They do not reach the author's handlers: one that writes to
stderr would make a log line of each.
"""

import logging
from typing import Any

__all__ = ["add_handler", "get_logger", "remove_handler", "set_level"]

_PACKAGE = "aiostream_ds"
_handlers: list[logging.Handler] = []


class _RuntimeLogger(logging.Logger):
    """A logger that is never disabled."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: Any) -> None:
        pass

    def callHandlers(self, record: logging.LogRecord) -> None:
        """Pass a record on, even if the root logger has lost the runtime's handlers."""
        lost = [each for each in _handlers if each not in self.root.handlers]
        if not lost:
            super().callHandlers(record)
        for handler in lost:
            if record.levelno >= handler.level:
                handler.handle(record)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module of the runtime."""
    logger = logging.getLogger(name)
    if type(logger) is logging.Logger:
        logger.__class__ = _RuntimeLogger
    return logger


def set_level(level: str) -> None:
    """Log the runtime's records from this level on, whatever the root logger's level becomes."""
    get_logger(_PACKAGE).setLevel(level)


def add_handler(handler: logging.Handler) -> None:
    """Add a handler of the root logger that the runtime's records must reach."""
    _handlers.append(handler)
    logging.getLogger().addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Remove a handler again; nothing if it was not added."""
    if handler in _handlers:
        _handlers.remove(handler)
    logging.getLogger().removeHandler(handler)
