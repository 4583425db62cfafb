"""Settings and secrets: what is decoded, what is refused, and what is never shown."""

import copy
import pickle
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from aiostream_ds import ConfigError, Secret, Settings, secret
from aiostream_ds._redaction import redact
from aiostream_ds.settings import check_settings, convert, decode_settings, json_schema


class Broker(Settings):
    url: str
    keep_alive: Annotated[int, Meta(ge=1)] = 60
    password: Secret = secret()
    token: Secret | None = None
    pin: Annotated[Secret | None, Meta(description="four digits")] = None


class Tls(Struct):
    names: dict[str, int] = {}


def test_plain_fields_come_from_json_data_in_camel_case_and_secrets_from_the_other_map():
    settings = decode_settings(
        Broker, b'{"url":"u","keepAlive":5}', {"password": "hunter2", "token": "t", "pin": "1234"}
    )
    assert (settings.url, settings.keep_alive) == ("u", 5)
    assert settings.password.reveal() == "hunter2"
    assert settings.token is not None and settings.token.reveal() == "t"
    assert settings.pin is not None and settings.pin.reveal() == "1234"


def test_unknown_keys_of_grafana_are_ignored():
    settings = decode_settings(Broker, b'{"url":"u","tlsAuth":true}', {"basicAuthPassword": "x"})
    assert settings == Broker(url="u")


def test_a_secret_in_json_data_is_not_read():
    data = b'{"url":"u","password":"open","token":"open","pin":"open"}'
    settings = decode_settings(Broker, data, {})
    assert not settings.password and settings.token is None and settings.pin is None


def test_a_plain_field_in_the_secret_map_is_not_read():
    with pytest.raises(ConfigError, match="url"):
        decode_settings(Broker, b"", {"url": "u"})


@pytest.mark.parametrize(
    "data, message",
    [
        (b"{", "is not JSON"),
        (b"[1]", "must be a JSON object, got [1]"),
        (b"{}", "url is missing"),
        (b'{"url":[3]}', "url: expected str, got [3]"),
        (b'{"url":"u","keepAlive":0}', "keepAlive: expected int >= 1, got 0"),
        (b'{"url":"u","keepAlive":"5s"}', "keepAlive: expected int, got '5s'"),
        (b'{"url":null}', "url is missing"),
    ],
)
def test_the_error_for_invalid_settings_names_the_field_the_expected_and_the_actual_value(
    data, message
):
    with pytest.raises(ConfigError) as caught:
        decode_settings(Broker, data, {})
    assert message in caught.value.message


@pytest.mark.parametrize(
    "value, kind, message",
    [
        ("x", int, "expected int, got 'x'"),
        ({"names": {"a": "x"}}, Tls, "names[...]: expected int, got str"),
        ({"names": {1: 1}}, Tls, "key in names: expected str, got int"),
        ([{"names": 3}], list[Tls], "value[0].names: expected object, got 3"),
        ([1, "x"], list[int], "value[1]: expected int, got 'x'"),
        ({"tls": {}}, dict[str, int], "value[...]: expected int, got object"),
        (["y" * 200], list[int], "value[0]: expected int, got '" + "y" * 76 + "..."),
    ],
)
def test_the_error_for_a_value_that_does_not_fit_names_it(value, kind, message):
    with pytest.raises(ValueError) as caught:
        convert(value, kind)
    assert str(caught.value) == message


class Cloud(Settings):
    app_id: str
    port: int = 1
    ratio: float = 0.5
    tls: bool = False
    region: Literal["1", "2"] = "1"
    hosts: list[str] = []
    limit: int | str = 0
    note: str | None = "n"
    names: dict[str, str] = {}
    token: Secret = secret()


@pytest.mark.parametrize(
    "data, field, value",
    [
        (b'{"appId":1111111}', "app_id", "1111111"),
        (b'{"appId":1.5}', "app_id", "1.5"),
        (b'{"appId":true}', "app_id", "true"),
        (b'{"appId":"a","port":"1883","ratio":"0.25"}', "ratio", 0.25),
        (b'{"appId":"a","tls":"true"}', "tls", True),
        (b'{"appId":"a","region":2}', "region", "2"),
        (b'{"appId":"a","hosts":"{a,b}"}', "hosts", ["a", "b"]),
        (b'{"appId":"a","hosts":"a"}', "hosts", ["a"]),
        (b'{"appId":"a","hosts":[7]}', "hosts", ["7"]),
        (b'{"appId":1,"limit":5}', "limit", 5),
        (b'{"appId":1,"note":null}', "note", None),
        (b'{"appId":1,"note":5}', "note", "5"),
        (b'{"appId":1,"names":{"a":1}}', "names", {"a": "1"}),
        (b'{"appId":1,"port":null}', "port", 1),
    ],
)
def test_provisioned_values_are_read_as_the_type_of_their_field(data, field, value):
    # Grafana makes numbers and booleans of the variables in a provisioning file
    found = getattr(decode_settings(Cloud, data, {}), field)
    assert (found, type(found)) == (value, type(value))


def test_a_key_may_be_spelled_as_the_field_in_python():
    settings = decode_settings(Broker, b'{"url":"u","keep_alive":5}', {})
    assert settings.keep_alive == 5
    settings = decode_settings(Broker, b'{"url":"u","keep_alive":5,"keepAlive":6}', {})
    assert settings.keep_alive == 6

    class Api(Settings):
        api_key: Secret = secret()

    assert decode_settings(Api, b"", {"api_key": "k"}).api_key.reveal() == "k"


@pytest.mark.parametrize(
    "data, secrets, message",
    [
        (b"{}", {}, "url is missing in jsonData; the data source has its own url"),
        (b"{}", {"url": "u"}, "url is missing in jsonData; secureJsonData has url"),
    ],
)
def test_the_error_for_a_missing_field_shows_where_its_value_is(data, secrets, message):
    with pytest.raises(ConfigError) as caught:
        decode_settings(Broker, data, secrets, outside=["url", "user"])
    assert message in caught.value.message


def test_the_error_for_a_missing_secret_shows_that_json_data_has_it():
    class Api(Settings):
        api_key: Secret

    with pytest.raises(ConfigError) as caught:
        decode_settings(Api, b'{"apiKey":"hunter2"}', {})
    assert "apiKey is missing in secureJsonData; jsonData has apiKey" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_the_error_for_a_missing_field_names_its_path():
    class Inner(Struct):
        port: int

    with pytest.raises(ValueError, match="value.0..port is missing"):
        convert([{}], list[Inner])


def test_settings_take_keywords_only_and_are_frozen():
    with pytest.raises(TypeError):
        Broker("u")  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Broker(url="u").url = "v"  # type: ignore[misc]


def test_a_required_field_may_follow_one_with_a_default_in_a_subclass():
    class More(Broker):
        topic: str

    assert decode_settings(More, b'{"url":"u","topic":"t"}', {}) == More(url="u", topic="t")


@pytest.mark.parametrize("show", [str, repr, "{}".format, lambda s: f"{s.password!s}"])
def test_a_secret_is_never_printed(show):
    assert "hunter2" not in show(Broker(url="u", password=Secret("hunter2")))


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.deepcopy,
        msgspec.json.encode,
        msgspec.to_builtins,
        lambda s: vars(s.password),
    ],
    ids=["pickle", "deepcopy", "json", "builtins", "vars"],
)
def test_a_secret_cannot_be_encoded_or_copied(leak):
    with pytest.raises(TypeError):
        leak(Broker(url="u", password=Secret("hunter2")))


def test_a_secret_is_hidden_in_strings_while_it_exists():
    password = Secret("hunter2")
    assert redact("login with hunter2 failed") == "login with *** failed"
    del password
    assert redact("hunter2") == "hunter2"


def test_secrets_compare_by_value_and_are_false_when_empty():
    assert Secret("a") == Secret("a") != Secret("b") and Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") and not Secret() and repr(Secret()) == "Secret('')"


def test_a_secret_is_a_password_without_a_value_in_the_schema():
    properties = json_schema(Broker)["$defs"]["Broker"]["properties"]
    assert properties["password"] == {"type": "string", "format": "password", "writeOnly": True}
    assert properties["keepAlive"] == {"type": "integer", "minimum": 1, "default": 60}


class Hidden(Struct):
    password: Secret


class Nested(Settings):
    auth: Hidden


class Listed(Settings):
    keys: list[Secret] = []


class Keyed(Settings):
    keys: dict[str, Secret] = {}


@pytest.mark.parametrize("kind", [Nested, Listed, Keyed])
def test_a_secret_inside_of_a_field_is_refused_because_it_would_not_be_encrypted(kind):
    with pytest.raises(TypeError, match=f"must be a field of {kind.__name__} itself"):
        check_settings(kind)


class Foreign(Settings):
    thing: object


class Ambiguous(Settings):
    thing: list[int] | set[int] = []


class Unknown(Settings):
    thing: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("kind", [Foreign, Ambiguous, Unknown])
def test_settings_that_cannot_be_decoded_from_json_are_refused(kind):
    with pytest.raises(TypeError, match=kind.__name__):
        check_settings(kind)


def test_valid_settings_pass():
    for kind in (Settings, Broker):
        check_settings(kind)


def test_an_error_of_an_authors_own_check_is_a_config_error():
    class Checked(Settings):
        low: int = 0
        high: int = 0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low = {self.low} is above high = {self.high}")

    with pytest.raises(ConfigError, match="low = 3 is above high = 0"):
        decode_settings(Checked, b'{"low":3}', {})


def test_any_is_decoded_without_a_change():
    assert convert({"a": [1]}, Any) == {"a": [1]}


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(Settings):
    k: Literal["x", "y"] = "x"


class Choices(Settings):
    one: Literal[1, 2] | None = 1
    colour: Annotated[Colour, Meta(description="of the line")] = Colour.RED
    several: list[Literal["p", "q"]] = []
    by_name: dict[str, Literal["p", "q"]] = {}
    pair: tuple[int, Colour] = (1, Colour.RED)
    inner: Inner = Inner()
    any_number: Literal["auto"] | int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"one": 3}, "one: expected one of 1, 2, got 3"),
        ({"colour": "green"}, "colour: expected one of 'red', 'blue', got 'green'"),
        ({"several": ["p", "r"]}, r"several\[1\]: expected one of 'p', 'q', got 'r'"),
        ({"byName": {"a": "r"}}, r"byName\[...\]: expected one of 'p', 'q', got 'r'"),
        ({"pair": [1, "green"]}, r"pair\[1\]: expected one of 'red', 'blue', got 'green'"),
        ({"inner": {"k": "z"}}, "inner.k: expected one of 'x', 'y', got 'z'"),
        ({"anyNumber": "x"}, "anyNumber: invalid enum value 'x'"),  # ints are allowed, too
    ],
)
def test_a_value_that_is_not_one_of_several_is_named_with_those(value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert(value, Choices)


class Retries(Settings):
    attempts: Annotated[int, Meta(ge=1)] = 3


class Login(Retries):
    token_key: Secret = secret()
    scopes: list[str] = []
    account: str


class Port(Settings):
    number: int = 1883


class Joined(Port, Login):
    host: str


def test_a_class_has_the_fields_of_several_bases():
    check_settings(Joined)
    decoded = decode_settings(Joined, b'{"host":"h","account":"a","attempts":5}', {"tokenKey": "k"})
    assert decoded == Joined(host="h", account="a", attempts=5, token_key=Secret("k"))
    assert decoded.scopes is not Joined(host="h", account="a").scopes
    with pytest.raises(ConfigError, match="attempts: expected int >= 1, got 0"):
        decode_settings(Joined, b'{"host":"h","account":"a","attempts":0}', {})
    with pytest.raises(ConfigError, match="account is missing"):
        decode_settings(Joined, b'{"host":"h"}', {})


def test_a_base_after_the_first_has_fields_only():
    class Methods(Settings):
        def text(self) -> str:
            return "text"

    class First(Methods, Port):
        pass

    assert First().text() == "text"
    with pytest.raises(TypeError, match=r"got Methods\.text; make Methods the first base"):

        class Second(Port, Methods):
            pass

    class Checked(Settings):
        def __post_init__(self) -> None: ...

    with pytest.raises(TypeError, match=r"got Checked\.__post_init__"):

        class Third(Port, Checked):
            pass
