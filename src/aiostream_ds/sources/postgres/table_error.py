"""Errors of a table, which may be there again later: streams are retried, queries are not."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiostream_ds.errors import BadQuery, ConfigError, NotFound, UpstreamError

__all__ = ["TableError", "retried"]


class TableError(ConfigError):
    """A column, or a right, that the settings need is missing."""


@contextmanager
def retried(*, has_filters: bool) -> Iterator[None]:
    """Errors of a table become transient, so that a stream goes on when it is back. So do values
    that a SELECT fails for; those of a viewer's filter do not change."""
    try:
        yield
    except (NotFound, TableError) as error:
        raise UpstreamError(error.message) from error
    except BadQuery as error:
        if has_filters:
            raise
        raise UpstreamError(error.message) from error
