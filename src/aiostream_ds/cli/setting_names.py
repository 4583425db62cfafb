"""Checks the settings of --set and --secret: their names, and whether one is missing."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.cli.target import CommandError
from aiostream_ds.settings import unknown_keys

__all__ = ["check_names", "check_names_in_document", "missing_options"]


def check_names(catalog: Catalog, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
    """Check the settings for a class.

    Raises:
        CommandError: There is a name that the class does not have.
    """
    kind = catalog.pick(msgspec.json.encode(settings))._ds_plan.settings
    fields = [field.encode_name for field in msgspec.structs.fields(kind)]
    plain = unknown_keys(kind, fields, secret=True)
    selector = [catalog.by] if catalog.by else []
    unknown = [key for key in unknown_keys(kind, settings) if key != catalog.by]
    secret = unknown_keys(kind, fields)
    _refuse("--set", unknown, [*selector, *plain], ("--secret", secret))
    _refuse("--secret", unknown_keys(kind, secrets, secret=True), secret, ("--set", plain))


def check_names_in_document(
    document: Mapping[str, Any], settings: Mapping[str, Any], secrets: Mapping[str, str]
) -> None:
    """Check the settings for a package with this schema.json; nothing without one.

    Raises:
        CommandError: There is a name that the package does not have.
    """
    source = _source(document, settings)
    if not source:
        return
    by = document.get("sourceSetting")
    secret = list(source.get("secrets", ()))
    properties = source.get("settings", {}).get("properties", {})
    plain = [*([by] if by else []), *(name for name in properties if name not in secret)]
    _refuse("--set", [k for k in settings if k not in plain], plain, ("--secret", secret))
    _refuse("--secret", [k for k in secrets if k not in secret], secret, ("--set", plain))


def missing_options(
    document: Mapping[str, Any], settings: Mapping[str, Any], secrets: Mapping[str, str]
) -> list[str]:
    """The options for settings without a default that were not given, for a class or a package with
    this schema.json."""
    source = _source(document, settings)
    secret = source.get("secrets", ())
    found = []
    for name in source.get("settings", {}).get("required", ()):
        given, option = (secrets, "--secret") if name in secret else (settings, "--set")
        if name not in given:
            found.append(f"{option} {name}=…")
    return found


def _source(document: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configured source in a schema.json; empty if there is none."""
    by = document.get("sourceSetting")
    wanted = settings.get(by) if by else None
    sources = document.get("sources", ())
    return next((s for s in sources if wanted in (None, "", s.get("name"))), {})


def _refuse(
    option: str,
    unknown: Collection[str],
    known: Collection[str],
    other: tuple[str, Collection[str]],
) -> None:
    """Raises CommandError for the first unknown name, with what may have been meant."""
    for key in unknown:
        meant = f"{other[0]} {key}=…" if key in other[1] else ""
        close = difflib.get_close_matches(key, known, 1)
        if not meant and close:
            meant = f"{option} {close[0]}=…"
        names = ", ".join(known) or "there is none"
        hint = f"; use {meant}" if meant else ""
        raise CommandError(f"{option} must name a setting ({names}), got {key!r}{hint}")
