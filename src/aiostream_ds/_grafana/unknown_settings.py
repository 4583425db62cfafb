"""Logs keys of a data source's settings that its class does not have: they may be misspelled."""

import logging

import msgspec

from aiostream_ds._loggers import get_logger
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.settings import Settings, unknown_keys

__all__ = ["log_unknown_settings"]

log = get_logger(__name__)


def log_unknown_settings(
    kind: type[Settings], settings: pb.DataSourceInstanceSettings, by: str | None
) -> None:
    """One line for all of them: a warning if one looks like a field.

    Grafana, and other classes of the same plugin, have keys in the same map.
    """
    data = settings.json_data
    plain = unknown_keys(kind, msgspec.json.decode(data) if data.strip() else {})
    secret = unknown_keys(kind, settings.decrypted_secure_json_data, secret=True)
    hints = {key: _hint(kind, key, "secureJsonData") for key in plain if key != by}
    hints |= {key: _hint(kind, key, "jsonData") for key in secret}
    if not hints:
        return
    log.log(
        logging.WARNING if any(hints.values()) else logging.INFO,
        "settings that nothing reads: %s",
        ", ".join(f"{key}{hint}" for key, hint in hints.items()),
        extra={"datasource": settings.uid},
    )


def _hint(kind: type[Settings], key: str, other: str) -> str:
    """What may have been meant; `other` is the map that the key is not in."""
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    if key in fields:
        return f" (it must be in {other})"
    if not fields:
        return ""
    import difflib  # few settings are unknown

    close = difflib.get_close_matches(key, fields, 1, 0.8)
    return f" (expected {close[0]}?)" if close else ""
