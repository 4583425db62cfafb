"""The built-in plugin loads what the configured source needs, and nothing else."""

import json
import subprocess
import sys

import pytest

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds.sources.builtin_plugin import SOURCES

CLIENTS = {
    "aiohttp",
    "aiohttp_socks",
    "asyncpg",
    "cbor2",
    "gmqtt",
    "jsonpath",
    "psutil",
    "python_socks",
    "redis",
}
OWN = {
    "host": {"psutil"},
    "http": {"aiohttp"},
    "mqtt": {"gmqtt"},
    "postgres": {"asyncpg"},
    "redis": {"redis"},
    "websocket": {"aiohttp"},
}

LOAD = """
import json, sys
sys.modules["opentelemetry"] = None  # redis-py imports it if it is installed, as for these tests
from importlib import import_module
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds.sources.builtin_plugin import SOURCES
module, _, name = SOURCES[sys.argv[1]].partition(":")
getattr(import_module(module), name)
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_source_imports_its_own_client_only(source):
    run = subprocess.run(
        [sys.executable, "-c", LOAD, source], capture_output=True, text=True, check=True
    )
    assert CLIENTS & set(json.loads(run.stdout)) == OWN.get(source, set())


@pytest.mark.parametrize("source", ["mqtt", "redis", "nats", "postgres", "http", "websocket"])
def test_the_form_has_the_connection_then_tls_then_decoding(source):
    found = {each["name"]: each for each in describe(Catalog(SOURCES, by="source"))["sources"]}
    fields = found[source]["settings"]["properties"]
    names = list(fields)
    last = max(names.index(each) for each in ("user", "password"))
    assert last < names.index("caCertificate") < names.index("format") < names.index("time")
    for certificate in ("caCertificate", "clientCertificate", "clientKey"):
        assert fields[certificate]["multiline"]
