"""What an admin configures: `Settings` classes, their secrets, and how both are decoded.

Grafana keeps the settings of a data source in two maps: jsonData, which browsers can read, and
secureJsonData, which is encrypted and write-only. A `Settings` class describes both: its fields of
type `Secret` are in the second map, all others in the first. Keys are camelCase on the wire.
"""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, dataclass_transform, get_args, get_origin

import msgspec

from aiostream_ds._allowed_values import allowed_values
from aiostream_ds._annotations import base_type
from aiostream_ds._leniency import mend, rename_keys
from aiostream_ds._redaction import hide_secret, redact
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
    "json_schemas",
    "secret",
    "section",
    "unknown_keys",
]

T = TypeVar("T")

_SHOWN = 80
"""Most characters of a bad value in a message."""


class Secret:
    """A string that is never printed, logged, pickled or encoded.

    While the object exists, log lines and messages to users show `***` instead of its value.
    """

    __slots__ = ("__value", "__weakref__")

    def __init__(self, value: str = "") -> None:
        self.__value = value
        if value:
            hide_secret(self)

    def reveal(self) -> str:
        """The value. Pass it to the client that needs it, and store it nowhere else."""
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
        raise TypeError("a Secret cannot be pickled or copied; use reveal()")


def secret() -> Secret:
    """The default of a secret field: an empty Secret.

    (`Secret()` as a default would be part of the JSON Schema.)
    """
    field: Secret = msgspec.field(default_factory=Secret)
    return field


def section(title: str) -> msgspec.Meta:
    """Puts a field of a `Settings` or `Query` class into a section of its form.

        class Broker(Settings):
            url: str
            keep_alive: Annotated[int, section("Advanced")] = 60

    Fields with the same title are one section, whatever class of the bases they are from. A section
    is closed until it is clicked, unless one of its fields is set or required. Sections follow the
    other fields, *Advanced* last.
    """
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"title must be a text that names the section, got {title!r}")
    return msgspec.Meta(extra_json_schema={"section": title})


class FrozenMeta(msgspec.StructMeta):
    """Makes subclasses `frozen` and `kw_only`; msgspec does not inherit `kw_only`.

    A class may have several bases with fields, which Python refuses for classes with slots: the
    second and later ones are copied on top of the first. They have fields only. `isinstance` is
    true for the first.
    """

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> Any:
        options.setdefault("frozen", True)
        options.setdefault("kw_only", True)
        if len(bases) > 1:
            bases = mcs._joined(name, bases)
        return super().__new__(mcs, name, bases, namespace, **options)

    @classmethod
    def _joined(mcs, name: str, bases: tuple[type, ...]) -> tuple[type, ...]:
        """The bases without a second one that has fields."""
        structs = [base for base in bases if isinstance(base, FrozenMeta)]
        others = tuple(base for base in bases if not isinstance(base, FrozenMeta))
        joined: Any = structs[0]
        for base in structs[1:]:
            for kind in reversed(base.__mro__):
                if isinstance(kind, FrozenMeta) and not issubclass(joined, kind):
                    joined = mcs._copy(name, kind, joined)
        return (joined, *others)

    @classmethod
    def _copy(mcs, name: str, kind: Any, base: Any) -> Any:
        """A class with the fields that `kind` itself declares, and another base. It has the name of
        `kind`, so that the docstrings of its fields are found."""
        names = [each for each in kind.__struct_fields__ if each in inspect.get_annotations(kind)]
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        namespace: dict[str, Any] = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "__annotations__": {each: fields[each].type for each in names},
        }
        if "__firstlineno__" in vars(kind):  # from Python 3.13 on the source is found by it
            namespace["__firstlineno__"] = vars(kind)["__firstlineno__"]
        for each in vars(kind):
            is_internal = each.startswith("__") and each != "__post_init__"
            if each not in names and not is_internal:
                raise TypeError(
                    f"{name}: expected a base after the first to have fields only, got"
                    f" {kind.__name__}.{each}; make {kind.__name__} the first base"
                )
        for each in names:
            field = fields[each]
            if field.default is not msgspec.NODEFAULT:
                namespace[each] = field.default
            elif field.default_factory is not msgspec.NODEFAULT:
                namespace[each] = msgspec.field(default_factory=field.default_factory)
        return mcs.__new__(mcs, kind.__name__, (base,), namespace)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Settings(msgspec.Struct, metaclass=FrozenMeta, rename="camel", frozen=True, kw_only=True):
    """The settings of one configured data source. Subclass it and declare fields.

        class Broker(Settings):
            url: str
            keep_alive: Annotated[int, Meta(ge=1)] = 60
            password: Secret = secret()

    An admin must fill in each field without a default. A field that is missing or invalid is a
    `ConfigError`, which Save & test shows. Unknown keys are ignored, because Grafana stores keys of
    its own in the same map; a log line names them.

    A value is read as its field's type where it can be meant: a number for a text, a text that
    spells a number, null for an absent value, `keep_alive` for `keepAlive`.
    """


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        if isinstance(value, str):
            return Secret(value)
        raise TypeError("Expected `str`")
    raise TypeError(f"expected a type that msgspec can decode from JSON, got {kind.__qualname__}")


def _secret_schema(kind: type) -> dict[str, Any]:
    if kind is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    raise TypeError(f"expected a type that has a JSON Schema, got {kind.__qualname__}")


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a Settings or Query class. Secrets are write-only passwords in it.

    Raises:
        TypeError: the type of a field cannot be decoded from JSON.
    """
    return msgspec.json.schema(kind, schema_hook=_secret_schema)


def json_schemas(kinds: Sequence[Any]) -> tuple[dict[Any, str], dict[str, Any]]:
    """The definitions of these classes and of all in them, and the name of each of these.

    A definition has the name of its class, unless another class has the same one, or it has
    characters that are not ASCII.

    Raises:
        TypeError: the type of a field cannot be decoded from JSON.
    """
    found, definitions = msgspec.json.schema_components(kinds, schema_hook=_secret_schema)
    names = [each["$ref"].rpartition("/")[2] for each in found]
    return dict(zip(kinds, names, strict=True)), definitions


def check_type(kind: Any) -> None:
    """Checks that values of `kind` can be decoded from JSON.

    Raises:
        TypeError: they cannot; the message names the type.
    """
    try:
        msgspec.json.Decoder(kind, dec_hook=_decode_secret)
        json_schema(kind)
    except NameError as error:
        raise TypeError(f"{error}; import or define it outside of TYPE_CHECKING") from error


def check_settings(kind: type[Settings]) -> None:
    """Checks that a Settings class can be decoded from Grafana's two maps.

    Raises:
        TypeError: the type of a field cannot be decoded, or a Secret is inside of a field.
    """
    try:
        check_type(kind)
    except TypeError as error:
        raise TypeError(f"{kind.__name__} cannot be decoded from JSON: {error}") from error
    # secureJsonData is flat: a secret inside of a field would be stored in jsonData, unencrypted.
    secrets = sum(is_secret(field.type) for field in msgspec.structs.fields(kind))
    if _count_passwords(json_schema(kind)) > secrets:
        raise TypeError(
            f"a Secret must be a field of {kind.__name__} itself, got one inside of a field"
        )


def _count_passwords(schema: Any) -> int:
    if isinstance(schema, dict):
        return sum(map(_count_passwords, schema.values())) + (schema.get("writeOnly") is True)
    return sum(map(_count_passwords, schema)) if isinstance(schema, list) else 0


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """`value`, which is parsed JSON, as `kind`.

    Unless `strict`, a string may spell a number, a number is the text that spells it, null is an
    absent value, and the text `{a,b}` is a list.

    Raises:
        ValueError: it does not fit; the message names the field, what was expected and the value.
    """
    try:
        return msgspec.convert(value, kind, strict=strict, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        if not strict:
            mended = mend(value, kind)
            if mended != value:
                return _convert_mended(mended, value, kind)
        raise ValueError(_explain(str(error), value, kind)) from None


def _convert_mended(mended: Any, value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(mended, kind, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error), value, kind)) from None


def decode_settings(
    kind: type[Settings],
    json_data: bytes,
    secrets: Mapping[str, str],
    *,
    outside: Collection[str] = (),
) -> Settings:
    """The settings that Grafana sends with each call, as an instance of `kind`.

    A key may also be spelled as the field in Python: `keep_alive` for `keepAlive`.

    Args:
        outside: names of values that Grafana keeps for this data source outside of both maps; the
            error for a missing field of such a name has their place.

    Raises:
        ConfigError: `json_data` is not JSON, or a field is missing or invalid.
    """
    try:
        plain = msgspec.json.decode(json_data) if json_data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the data source's jsonData is not JSON: {error}") from None
    if not isinstance(plain, dict):
        raise ConfigError(f"the data source's jsonData must be a JSON object, got {_shown(plain)}")
    fields = msgspec.structs.fields(kind)
    secret_keys = {f.encode_name for f in fields if is_secret(f.type)}
    plain, hidden = rename_keys(plain, kind), rename_keys(secrets, kind)
    values = {k: v for k, v in plain.items() if k not in secret_keys}
    values |= {k: v for k, v in hidden.items() if k in secret_keys}
    try:
        return convert(values, kind, strict=False)
    except ValueError as error:
        hint = _place(str(error), fields, plain, hidden, outside)
        raise ConfigError(f"data source settings: {error}{hint}") from None


def _place(
    error: str,
    fields: Iterable[msgspec.structs.FieldInfo],
    plain: Collection[str],
    secrets: Collection[str],
    outside: Collection[str],
) -> str:
    """Where the value of a missing field is instead, if it is anywhere."""
    key = error.removesuffix(" is missing")
    field = next((field for field in fields if field.encode_name == key), None)
    if field is None or key == error:
        return ""
    if is_secret(field.type):
        return f" in secureJsonData; jsonData has {key}" if key in plain else ""
    if key in secrets:
        return f" in jsonData; secureJsonData has {key}"
    if key in outside:
        return (
            f" in jsonData; the data source has its own {key}, outside of jsonData: set it in"
            f" jsonData, or read self.instance.{key}"
        )
    return ""


def unknown_keys(kind: type[Settings], keys: Iterable[str], *, secret: bool = False) -> list[str]:
    """The keys of jsonData, or of secureJsonData, that no field of `kind` has."""
    fields = [field for field in msgspec.structs.fields(kind) if is_secret(field.type) == secret]
    known = {name for field in fields for name in (field.name, field.encode_name)}
    return [key for key in keys if key not in known]


def is_secret(kind: Any) -> bool:
    """Whether this type is `Secret` or `Secret | None`, annotated or not."""
    kind = base_type(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(map(is_secret, get_args(kind)))
    return kind is Secret


_MESSAGE = r"(?P<text>.*?)(?: - at (?P<path>`.*`))?"
_MISSING = "Object missing required field "
_NOT_A_MEMBER = "invalid enum value "
_STEP = r"\.(\w+)|\[(\d+|\.\.\.)\]"


def _explain(message: str, value: Any, kind: Any) -> str:
    """A message of msgspec, which has the type of a bad value, with the value itself, and with the
    values that a Literal or an Enum allows."""
    match = re.fullmatch(_MESSAGE, message, re.S)
    text, path = (match["text"], match["path"] or "") if match else (message, "")
    text = text.replace("`", "")
    name = path.replace("`", "").replace("$.", "").replace("$", "value")
    if text.startswith(_MISSING):
        return f"{name}{'.' if name else ''}{text.removeprefix(_MISSING)} is missing"
    prefix = f"{name}: " if name else ""
    if not text.startswith(("Expected ", "Invalid ")):
        return prefix + text  # the message of an author's own check
    text = text[0].lower() + text[1:]
    if text.startswith(_NOT_A_MEMBER):
        text = _one_of(kind, path, text)
    try:
        shown = _shown(_at(path, value))
    except (LookupError, TypeError, ValueError):  # msgspec writes [...] for any key of a dict
        return prefix + text
    return prefix + (text if shown in text else f"{re.sub(r', got [^,]*$', '', text)}, got {shown}")


def _one_of(kind: Any, path: str, text: str) -> str:
    """The message about a value that is not one of a Literal or an Enum, with those that are."""
    values = allowed_values(kind, [key or index for key, index in re.findall(_STEP, path)])
    if not values:
        return text
    return f"expected one of {', '.join(map(repr, values))}, got {text.removeprefix(_NOT_A_MEMBER)}"


def _at(path: str, value: Any) -> Any:
    """The value at a path of msgspec, such as `$.a[0]`."""
    if " in " in path:
        raise ValueError(f"expected the path of a value, got {path}")
    for key, index in re.findall(_STEP, path):
        value = value[key or int(index)]
    return value


def _shown(value: Any) -> str:
    text = redact(repr(value))  # before it is cut: a part of a secret may not be found
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
