"""Refusals of a push: the HTTP status, the reason in words, and when a retry may succeed."""

from math import ceil

__all__ = ["PushRefused", "too_large"]


class PushRefused(Exception):
    """Nothing of the body was stored.

    Args:
        status: the HTTP status: 400, 403, 413, 415, 429 or 503.
        message: the reason.
        retry_after: seconds after which the same body may be taken; None if it never is.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, ceil(retry_after)))


def too_large(limit: int, got: str) -> PushRefused:
    """The refusal of a body that is beyond the setting `max_message`."""
    return PushRefused(
        413,
        f"expected a body of at most {limit:,} bytes, which the setting maxMessage allows, got"
        f" {got}; send smaller batches",
    )
