"""Which class serves a configured data source."""

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


def test_one_class_serves_whatever_the_settings_say():
    assert Catalog(One).pick(b'{"source":"two"}') is One
    assert Catalog(One).pick(b"no json, and nobody asks") is One


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
def test_a_setting_names_the_class_and_the_first_is_the_default(data, expected):
    assert Catalog({"one": One, "two": Two}, by="source").pick(data) is expected


@pytest.mark.parametrize("name", ['"three"', "3", '["one"]', '{"one":1}', "true"])
def test_an_unknown_name_is_a_config_error_that_lists_the_known(name):
    with pytest.raises(ConfigError, match="source = .* is none of 'one', 'two'"):
        Catalog({"one": One, "two": Two}, by="source").pick(b'{"source":%b}' % name.encode())


def test_settings_that_are_no_json_are_a_config_error():
    with pytest.raises(ConfigError, match="is not JSON"):
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
def test_a_target_that_is_no_class_and_no_table_is_refused(target: Any, by: str | None):
    with pytest.raises(TypeError, match="serve|by="):
        Catalog(target, by)


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("made_up")
    module.One, module.number = One, 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    return module


def test_a_text_is_imported_when_first_picked_and_only_then(module):
    catalog = Catalog({"two": Two, "late": "made_up:One"}, by="source")
    assert catalog.pick(b'{"source":"late"}') is One
    module.One = Two
    assert catalog.pick(b'{"source":"late"}') is One


def test_a_missing_package_is_a_config_error_that_names_it():
    with pytest.raises(ConfigError, match="needs the package 'not_installed_here'"):
        load("not_installed_here:Class")


@pytest.mark.parametrize("text", ["made_up:number", "made_up:Nothing", "made_up", ":One", ""])
def test_a_text_that_names_no_data_source_is_a_type_error(module, text):
    with pytest.raises(TypeError, match=repr(text)):
        load(text)
