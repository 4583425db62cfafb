"""The dashboards and provisioning files: Grafana can load them, and the source of each dashboard
answers its queries."""

import importlib.util
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import yaml

from aiostream_ds.packaging.package_layout import importable_dashboards
from aiostream_ds.sources.builtin_plugin import PLUGIN_ID, SOURCES
from aiostream_ds.stores import SqliteStore
from aiostream_ds.testing import serve_in_memory
from tests.servers import Mosquitto, Redis, certificates
from tests.servers.web import EventServer, SocketServer
from tests.sources.nats.connecting import NatsToRead
from tests.sources.postgres.support import GRANTS, READER_PASSWORD, READINGS, ROW
from tests.sources.postgres.support import running_server as postgres_server

pytestmark = pytest.mark.slow  # every dashboard, real servers

ROOT = Path(__file__).parents[1]
PROVISIONING = ROOT / "builtin" / "provisioning"
PROVISIONED = sorted((PROVISIONING / "dashboards" / "aiostream").glob("*.json"))
SOURCE_FILE = PROVISIONING / "datasources" / "aiostream.yaml"
PROVIDER_FILE = PROVISIONING / "dashboards" / "aiostream.yaml"

_FIRST_CELL = re.compile(r"^\| (.+?) \|", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")

EACH_PROVISIONED = pytest.mark.parametrize("path", PROVISIONED, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


IMPORTED = {path: json.loads(text) for path, text in importable_dashboards().items()}
MODELS = {f"provisioned/{path.stem}": load(path) for path in PROVISIONED} | IMPORTED
EACH = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def data_sources() -> dict[str, dict[str, Any]]:
    """The data sources in the provisioning file, by uid."""
    found = yaml.safe_load(SOURCE_FILE.read_text("utf-8"))
    assert found["apiVersion"] == 1
    return {one["uid"]: one for one in found["datasources"]}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", ROOT / "scripts" / "dashboards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METRICS = load(PROVISIONING / "dashboards" / "metrics" / "process.json")
_METRIC = re.compile(r"\baiostream_ds_\w+")


def test_the_dashboard_of_metrics_is_what_the_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    found = importlib.import_module("metrics_dashboard").FILES
    assert {path: path.read_text("utf-8") for path in found} == found


def test_the_dashboard_of_metrics_reads_metrics_that_exist():
    documented = set(_METRIC.findall((ROOT / "docs" / "behaviour.md").read_text("utf-8")))
    read = {
        name.removesuffix("_bucket")
        for target in targets(METRICS)
        for name in _METRIC.findall(target["expr"])
    }
    assert read <= documented
    cluster = {name for name in documented if name.startswith("aiostream_ds_cluster_")}
    assert cluster <= read


def test_the_panels_of_metrics_have_one_letter_for_each_expression():
    for panel in METRICS["panels"]:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert letters == list("ABCDEFGH")[: len(letters)]
        assert len(letters) > 0 or panel["type"] == "row"


def variables(model: dict[str, Any]) -> dict[str, str]:
    """The default value of each variable."""
    return {one["name"]: one["current"]["value"] for one in model["templating"]["list"]}


def substitute(value: Any, known: dict[str, str]) -> Any:
    return _VARIABLE.sub(lambda m: known[m[1]], value) if isinstance(value, str) else value


def targets(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [target for panel in model["panels"] for target in panel.get("targets", ())]


def test_the_files_are_what_the_script_writes():
    for path, content in script().files():
        assert path.read_text("utf-8") == content, f"{path} is stale: run scripts/dashboards"


def test_each_provisioned_data_source_is_a_source_of_the_built_in_plugin():
    for one in data_sources().values():
        assert one["type"] == PLUGIN_ID
        assert one["jsonData"]["source"] in SOURCES


def test_each_dashboard_starts_with_a_provisioned_data_source():
    assert len(PROVISIONED) == len(data_sources())
    for path in PROVISIONED:
        picker = load(path)["templating"]["list"][0]
        configured = data_sources()[picker["current"]["value"]]
        assert picker["current"]["text"] == configured["name"]
        assert configured["jsonData"]["source"] == path.stem


def test_the_provider_reads_the_folder_next_to_it():
    (provider,) = yaml.safe_load(PROVIDER_FILE.read_text("utf-8"))["providers"]
    assert Path(provider["options"]["path"]).name == PROVISIONED[0].parent.name
    assert provider["type"] == "file"


def test_the_plugin_offers_each_dashboard_for_import():
    includes = load(ROOT / "plugin.json")["includes"]
    offered = {one["path"] for one in includes if one["type"] == "dashboard"}
    assert offered == IMPORTED.keys()
    assert len(offered) == len(PROVISIONED)


def test_the_newest_values_of_the_dashboard_of_push_are_without_the_cursor():
    for path, model in MODELS.items():
        for panel in model["panels"] if "push" in str(path) else ():
            if panel["type"] == "stat":
                (each,) = panel["transformations"]
                assert each["options"]["exclude"]["names"] == ["cursor"]


@EACH
def test_a_table_of_rows_has_the_newest_at_its_top_with_milliseconds(model):
    for panel in model["panels"]:
        if panel["type"] == "table" and "last 10 s" in panel["title"]:
            assert panel["options"]["sortBy"] == [{"displayName": "time", "desc": True}]
            (time,) = panel["fieldConfig"]["overrides"]
            assert time["properties"][0] == {"id": "unit", "value": "time:HH:mm:ss.SSS"}


@pytest.mark.parametrize(
    "page", ["docs/configure.md", "docs/sources.md", "builtin/plugin-readme.md"]
)
def test_the_pages_for_admins_list_each_source(page):
    listed = _FIRST_CELL.findall((ROOT / page).read_text("utf-8"))
    assert SOURCES.keys() <= {re.sub(r"\[(.+)\]\(.+\)", r"\1", cell).strip("`") for cell in listed}


def test_the_page_for_admins_lists_each_dashboard():
    listed = _FIRST_CELL.findall((ROOT / "docs" / "configure.md").read_text("utf-8"))
    assert {load(path)["title"] for path in PROVISIONED} <= {cell.strip("*") for cell in listed}


@EACH
def test_no_panel_names_a_data_source_of_one_grafana(model):
    holders = [panel for panel in model["panels"] if panel["type"] != "text"] + targets(model)
    for holder in holders:
        assert holder["datasource"] == {"type": PLUGIN_ID, "uid": "${datasource}"}
    assert model.get("id") is None


@EACH
def test_every_variable_that_is_used_exists_and_every_one_is_used(model):
    inputs = {one["name"] for one in model.get("__inputs", ())}
    used = set(_VARIABLE.findall(json.dumps(model)))
    assert used <= variables(model).keys() | inputs
    assert variables(model).keys() <= used


def test_no_provisioned_file_has_the_name_by_which_grafana_finds_plugins():
    """Grafana looks for `plugin.json` in all folders of a plugin and warns of others."""
    files = {path.name for path in PROVISIONING.rglob("*") if path.is_file()}
    assert "process.json" in files
    assert "plugin.json" not in files


@pytest.mark.parametrize("model", [*MODELS.values(), METRICS], ids=[*MODELS, "metrics"])
def test_panels_do_not_overlap_on_the_grid(model):
    taken: set[tuple[int, int]] = set()
    panels = model["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_an_imported_dashboard_is_the_provisioned_one_with_another_data_source():
    for provisioned, imported in zip(PROVISIONED, IMPORTED.values(), strict=True):
        expected, found = load(provisioned), json.loads(json.dumps(imported))
        assert found.pop("__inputs")[0]["pluginId"] == PLUGIN_ID
        assert expected.pop("uid")
        del expected["templating"]["list"][0]["current"], found["templating"]["list"][0]["current"]
        assert found == expected


@contextmanager
def configured(source: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The arguments of `serve_in_memory` for a dashboard's data source, with something to read."""
    settings = dict(data_sources()[f"aiostream-{source}"]["jsonData"])
    known = variables(load(PROVISIONED[0].with_name(f"{source}.json")))
    secrets: dict[str, str] = {}
    with ExitStack() as stack:
        if source == "file":
            settings["directory"] = str(folder)
            line = {"time": time.time(), "level": "info", "ms": 1}
            (folder / known["file"]).write_text(json.dumps(line) + "\n", "utf-8")
        elif source == "mqtt":
            broker = stack.enter_context(Mosquitto(tls=certificates().server))
            settings |= {"host": "localhost", "port": broker.port}
            settings["caCertificate"] = certificates().ca
            secrets["password"] = broker.password
        elif source == "redis":
            server = stack.enter_context(Redis(tls=certificates().server))
            server.call("XADD", known["stream"], "*", "price", 1.5)
            settings |= {"host": "127.0.0.1", "port": server.port}
            settings["caCertificate"] = certificates().ca
            secrets["password"] = server.reader_password
        elif source == "nats":
            server = stack.enter_context(NatsToRead(tls=certificates().server))
            server.make_stream(known["stream"])
            server.call("orders.eu", b'{"price": 1.5}')
            settings["servers"] = f"tls://127.0.0.1:{server.port}"
            settings["caCertificate"] = certificates().ca
            secrets["password"] = server.user_password
        elif source == "postgres":
            server = stack.enter_context(postgres_server(f"{READINGS}{GRANTS}{ROW}"))
            settings |= {"host": "localhost", "port": server.port, "database": server.database}
            settings["caCertificate"] = certificates().ca
            secrets["password"] = READER_PASSWORD
        elif source == "push":
            settings["directory"] = str(folder)
            with ThreadPoolExecutor() as threads:
                threads.submit(anyio.run, push_row, folder, known["path"]).result()
        elif source == "http":
            server = stack.enter_context(EventServer())
            settings["url"] = f"http://127.0.0.1:{server.port}/sse/{{topic}}"
            secrets["token"] = "sesame"
        elif source == "websocket":
            server = stack.enter_context(SocketServer())
            settings["url"] = f"ws://127.0.0.1:{server.port}/"
        yield {"settings": settings, "secrets": secrets}


async def push_row(folder: Path, path: str) -> None:
    async with SqliteStore(folder, name="push-1-test") as store:
        await store.append(path, [{"time": round(time.time() * 1000), "celsius": 21.5}])


@EACH_PROVISIONED
async def test_each_query_is_answered_by_the_dashboards_source(path, tmp_path):
    model = load(path)
    known = variables(model)
    with configured(path.stem, tmp_path) as arguments:
        async with serve_in_memory(SOURCES, by="source", **arguments) as grafana:
            ok, message = await grafana.health()
            assert ok, message
            for target in targets(model):
                query = {name: substitute(value, known) for name, value in target.items()}
                (frame,) = await grafana.query(query)
                meta = frame.meta
                channel = meta.custom["cursor"]["channel"] if target["exact"] else meta.channel
                assert channel.startswith("ds/test/")


@EACH_PROVISIONED
async def test_the_columns_that_panels_select_exist(path, tmp_path):
    model = load(path)
    known = variables(model)
    with configured(path.stem, tmp_path) as arguments:
        async with serve_in_memory(SOURCES, by="source", **arguments) as grafana:
            for panel in model["panels"]:
                if wanted := picked(panel):  # every row has a time, also of a stream without rows
                    query = {k: substitute(v, known) for k, v in panel["targets"][0].items()}
                    (frame,) = await grafana.query(query)
                    assert wanted - {"time"} <= {field.name for field in frame.fields}


def picked(panel: dict[str, Any]) -> set[str]:
    """The names of columns in a panel's options and transformations."""
    found = {one["displayName"] for one in panel["options"].get("sortBy", ())}
    field = panel["options"].get("reduceOptions", {}).get("fields", "")
    found |= {field.strip("/^$")} if field else set()
    for step in panel.get("transformations", ()):
        for kept_or_left in step["options"].values():
            found |= set(kept_or_left["names"])
    return found
