"""The selection of the class that serves a data source."""

import sys
from types import ModuleType
from typing import Any

import pytest

from aiostream_ds import ConfigError, DataSource
from aiostream_ds._grafana.catalog import Catalog, load


class One(DataSource):
    pass


class Two(DataSource):
    pass


def test_a_single_class_serves_any_settings():
    assert Catalog(One).pick(b'{"source":"two"}') is One
    assert Catalog(One).pick(b"not JSON") is One


@pytest.mark.parametrize(
    "data, expected",
    [
        (b'{"source":"two"}', Two),
        (b'{"source":"one"}', One),
        (b'{"source":""}', One),
        (b'{"source":null}', One),
        (b"{}", One),
        (b"", One),
        (b"[]", One),
    ],
)
def test_a_setting_selects_the_class_and_the_first_is_the_default(data, expected):
    assert Catalog({"one": One, "two": Two}, by="source").pick(data) is expected


@pytest.mark.parametrize("name", ['"three"', "3", '["one"]', '{"one":1}', "true"])
def test_an_unknown_name_is_a_config_error_that_lists_the_names(name):
    with pytest.raises(ConfigError, match="source must be one of 'one', 'two', got "):
        Catalog({"one": One, "two": Two}, by="source").pick(b'{"source":%b}' % name.encode())


def test_invalid_json_in_the_settings_is_a_config_error():
    with pytest.raises(ConfigError, match="jsonData must be a JSON object"):
        Catalog({"one": One}, by="source").pick(b"{")


@pytest.mark.parametrize(
    "target, by",
    [
        ({}, "source"),
        ({"one": One}, None),
        ({"one": One}, ""),
        ({"": One}, "source"),
        ({1: One}, "source"),
        ({"one": 5}, "source"),
        ({"one": DataSource}, "source"),
        ({"one": int}, "source"),
        (One, "source"),
        (DataSource, None),
        (int, None),
        ("module:Class", None),
        (None, None),
    ],
)
def test_an_invalid_target_is_rejected(target: Any, by: str | None):
    with pytest.raises(TypeError, match="DataSource class|by=|`by`|class.s name"):
        Catalog(target, by)


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("made_up")
    module.One, module.number = One, 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    return module


def test_a_string_is_imported_once_when_first_selected(module):
    catalog = Catalog({"two": Two, "late": "made_up:One"}, by="source")
    assert catalog.pick(b'{"source":"late"}') is One
    module.One = Two
    assert catalog.pick(b'{"source":"late"}') is One


def test_a_missing_package_is_a_config_error_that_names_it():
    with pytest.raises(ConfigError, match="needs the package 'not_installed_here'"):
        load("not_installed_here:Class")


@pytest.mark.parametrize("text", ["made_up:number", "made_up:Nothing", "made_up", ":One", ""])
def test_a_string_that_does_not_name_a_data_source_is_a_type_error(module, text):
    with pytest.raises(TypeError, match=repr(text)):
        load(text)
