"""What an admin configures: `Settings` classes, their secrets, and how both are decoded.

Grafana keeps a data source's settings in two maps: jsonData (readable in the browser) and
secureJsonData (encrypted, write-only). A `Settings` class is both: fields of type `Secret` come
from the second, everything else from the first. Keys are camelCase on the wire.
Imports: msgspec, annotations and the ground.
"""

import re
from types import UnionType
from typing import Any, TypeVar, Union, dataclass_transform, get_args, get_origin

import msgspec

from aiostream_ds import _telemetry as telemetry
from aiostream_ds._annotations import base_type
from aiostream_ds.errors import ConfigError

__all__ = [
    "FrozenMeta",
    "Secret",
    "Settings",
    "check_settings",
    "check_type",
    "convert",
    "decode_settings",
    "is_secret",
    "json_schema",
    "secret",
]

T = TypeVar("T")


class Secret:
    """A text that is never printed, logged or encoded; only `reveal()` gives it."""

    __slots__ = ("__value", "__weakref__")

    def __init__(self, value: str = "") -> None:
        self.__value = value
        if value:
            telemetry.keep_secret(self)

    def reveal(self) -> str:
        """The text itself: hand it to the client that needs it and keep it nowhere."""
        return self.__value

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __repr__(self) -> str:
        return "Secret('***')" if self.__value else "Secret('')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.__value == other.__value

    def __hash__(self) -> int:
        return hash(self.__value)

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: hand over what reveal() returns, knowingly")


def secret() -> Secret:
    """The default of a secret field: empty. (A plain default would end up in the form's schema.)"""
    field: Secret = msgspec.field(default_factory=Secret)
    return field


class FrozenMeta(msgspec.StructMeta):
    """Hands `frozen` and `kw_only` to subclasses: msgspec does not inherit the second."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> Any:
        options.setdefault("frozen", True)
        options.setdefault("kw_only", True)
        return super().__new__(mcs, name, bases, namespace, **options)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Settings(msgspec.Struct, metaclass=FrozenMeta, rename="camel", frozen=True, kw_only=True):
    """The settings of one configured data source. Subclass it and declare fields.

        class Broker(Settings):
            url: str
            keep_alive: Annotated[int, Meta(ge=1)] = 60
            password: Secret = secret()

    Unknown keys are ignored, since Grafana stores its own beside yours. A field without a default
    must be filled in by the admin; one that is missing or wrong is a `ConfigError` in Save & test.
    """


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        if isinstance(value, str):
            return Secret(value)
        raise TypeError("Expected `str`")
    raise TypeError(f"{kind.__qualname__} cannot be read from JSON; use what msgspec supports")


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    raise TypeError(f"{kind.__qualname__} has no JSON Schema; use what msgspec supports")


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a Settings or Query class; secrets are write-only passwords in it.

    Raises TypeError when a field's type is none that can be read from JSON.
    """
    return msgspec.json.schema(kind, schema_hook=_secret_schema)


def check_type(kind: Any) -> None:
    """Raises TypeError when values of `kind` cannot be read from JSON, which it names."""
    try:
        msgspec.json.Decoder(kind, dec_hook=_decode_secret)
        json_schema(kind)
    except NameError as error:
        raise TypeError(f"{error}: import or define it where it exists at run time") from error


def check_settings(kind: type[Settings]) -> None:
    """Raises TypeError when no admin's input can become such settings."""
    try:
        check_type(kind)
    except TypeError as error:
        raise TypeError(f"{kind.__name__} cannot be read from JSON: {error}") from error
    # secureJsonData is flat: a secret anywhere deeper would be stored in the open, in jsonData.
    secrets = sum(is_secret(field.type) for field in msgspec.structs.fields(kind))
    if _count_passwords(json_schema(kind)) > secrets:
        raise TypeError(
            f"{kind.__name__} has a Secret inside a field; allowed is a field of its own"
        )


def _count_passwords(schema: Any) -> int:
    if isinstance(schema, dict):
        return sum(map(_count_passwords, schema.values())) + (schema.get("writeOnly") is True)
    return sum(map(_count_passwords, schema)) if isinstance(schema, list) else 0


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """`value` (parsed JSON) as `kind`; if not `strict`, a text that spells a number is one.

    Raises ValueError with a sentence that names the field, the bad value and what is allowed.
    """
    try:
        return msgspec.convert(value, kind, strict=strict, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), value)) from None


def decode_settings(kind: type[Settings], json_data: bytes, secrets: dict[str, str]) -> Settings:
    """The settings that Grafana sends with each call, as an instance of `kind`.

    Raises ConfigError for JSON that is none, and for a field that is missing or wrong.
    """
    try:
        plain = msgspec.json.decode(json_data) if json_data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the data source's jsonData is not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise ConfigError("the data source's jsonData is not a JSON object")
    fields = msgspec.structs.fields(kind)
    hidden = {f.encode_name for f in fields if is_secret(f.type)}
    values = {k: v for k, v in plain.items() if k not in hidden}
    values |= {k: v for k, v in secrets.items() if k in hidden}
    try:
        return convert(values, kind)
    except ValueError as error:
        raise ConfigError(f"data source settings: {error}") from None


def is_secret(kind: Any) -> bool:
    """Whether this type is `Secret` or `Secret | None`, annotated or not."""
    kind = base_type(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(map(is_secret, get_args(kind)))
    return kind is Secret


_PLACE = r"(?P<what>.*?)(?: - at (?P<place>`.*`))?"
_STEP = r"\.(\w+)|\[(\d+|\.\.\.)\]"


def _explain(message: str, value: Any) -> str:
    """msgspec says what was expected and where; the reader also needs what was there."""
    match = re.fullmatch(_PLACE, message, re.S)
    what, place = (match["what"], match["place"]) if match else (message, None)
    what = what.replace("`", "")
    missing = what.removeprefix("Object missing required field ")
    if place is None:
        return what if missing == what else f"{missing} is missing"
    name = place.replace("`", "").replace("$.", "").replace("$", "value")
    if missing != what:
        return f"{name}.{missing} is missing"
    if " in " in name:
        return f"{name}: {what}"
    for key, index in re.findall(_STEP, place):
        try:
            value = value[key or int(index)]
        except (LookupError, TypeError, ValueError):  # msgspec writes [...] for any key of a dict
            return f"{name}: {what}"
    shown = repr(value)
    return f"{name} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {what}"
