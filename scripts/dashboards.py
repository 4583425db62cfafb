"""Writes the built-in plugin's dashboards, one a source: builtin/provisioning/dashboards/aiostream.

Grafana reads them from its provisioning folder: they start with the data source of
`datasources/aiostream.yaml`. A package also holds a form of them that can be imported from the tab
Dashboards of a data source (`aiostream_ds.packaging.package_layout`). In both a viewer can select
another data source at the top, and no panel names a data source.

The model is the one of Grafana 9.4 (schema version 37, `DashboardMigrator.ts`); newer ones migrate
it as they load.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
PLUGIN_ID = json.loads((ROOT / "plugin.json").read_text("utf-8"))["id"]

SCHEMA_VERSION = 37
COLUMNS = 24
"""Grid units in a row of a dashboard."""

FIVE_MINUTES = 15_000
"""Rows that a graph holds: 50 a second for the five minutes that a dashboard begins with."""

NEWEST: Json = {"timeFrom": "10s", "hideTimeOverride": True, "maxDataPoints": 500}
"""A panel that redraws every row on each update: a few seconds are enough, and fast."""

LOG_OPTIONS: Json = {
    "showTime": True,
    "showLabels": False,
    "wrapLogMessage": True,
    "enableLogDetails": True,
    "sortOrder": "Descending",
    "dedupStrategy": "none",
}
"""A logs panel with the newest line at its top."""

DATA_SOURCE = {"type": PLUGIN_ID, "uid": "${datasource}"}
OUT = ROOT / "builtin" / "provisioning" / "dashboards" / "aiostream"


# -- parts of panels -----------------------------------------------------------------------------


def query(query_type: str, exact: bool = True, **fields: object) -> Json:
    """One query; `panel` adds its refId."""
    return {"queryType": query_type, **fields, "withStreaming": True, "exact": exact}


def panel(kind: str, title: str, size: tuple[int, int], *queries: Json, **rest: Any) -> Json:
    """A panel of one type; `size` is width and height, `dashboard` adds its position."""
    targets = [
        {"refId": letter, "datasource": DATA_SOURCE, **one}
        for letter, one in zip("ABCDEFGH", queries, strict=False)
    ]
    width, height = size
    return {
        "type": kind,
        "title": title,
        "datasource": DATA_SOURCE,
        "gridPos": {"w": width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {},
        **rest,
    }


def text(size: tuple[int, int], markdown: str) -> Json:
    """A panel with text."""
    made = panel("text", "", size, transparent=True)
    del made["targets"], made["datasource"]
    made["options"] = {"mode": "markdown", "content": markdown}
    return made


def lines(*, fill: int = 0, stacked: bool = False, **defaults: Any) -> Json:
    """Options of a time series panel: thin lines, no points, gaps stay open."""
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": fill,
        "showPoints": "never",
        "spanNulls": False,
    }
    if stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    return {
        "fieldConfig": {"defaults": {"custom": custom, **defaults}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    }


def newest(field: str = "", *, graph: bool = True, **defaults: Any) -> Json:
    """Options of a stat panel: the last value of one field in the field's unit."""
    return {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "reduceOptions": {
                "calcs": ["lastNotNull"],
                "fields": f"/^{field}$/" if field else "",
                "values": False,
            },
            "graphMode": "area" if graph else "none",
            "colorMode": "value",
            "textMode": "auto",
        },
    }


def neutral() -> Json:
    """One colour, for values that are neither good nor bad."""
    return {"color": {"mode": "fixed", "fixedColor": "blue"}}


def steps(*bounds: tuple[float | None, str]) -> Json:
    """Thresholds: a colour from each value up."""
    found = [{"value": value, "color": colour} for value, colour in bounds]
    return {"thresholds": {"mode": "absolute", "steps": found}, "color": {"mode": "thresholds"}}


def choice(name: str, label: str, *values: str) -> Json:
    """A variable with a fixed list of values; the first is the default."""
    options = [{"text": v, "value": v, "selected": v == values[0]} for v in values]
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ",".join(values),
        "options": options,
        "current": options[0],
        "multi": False,
        "includeAll": False,
        "hide": 0,
    }


def text_box(name: str, label: str, value: str) -> Json:
    """A variable that the viewer types."""
    current = {"text": value, "value": value}
    return {
        "type": "textbox",
        "name": name,
        "label": label,
        "query": value,
        "options": [{**current, "selected": True}],
        "current": {**current, "selected": True},
        "hide": 0,
    }


# -- the dashboards ------------------------------------------------------------------------------


def demo() -> Json:
    """The source `demo`."""
    walk = query("walk", hz="${hz}", seed=1, alias="seed 1")
    return dashboard(
        "demo",
        "A walk that is the same on every machine: history and live rows of one function of time.",
        [choice("hz", "Rows a second", "10", "1", "50")],
        panel(
            "timeseries",
            "Exact: no row missing, none twice",
            (24, 9),
            walk,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "timeseries",
            "Several queries in one panel",
            (12, 8),
            query("walk", hz="${hz}", seed=2, alias="seed 2"),
            query("walk", hz="${hz}", seed=3, alias="seed 3"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "timeseries",
            "The stock way of Grafana, for comparison",
            (12, 8),
            query("walk", exact=False, hz="${hz}", seed=1, alias="seed 1"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel("stat", "Newest value", (6, 6), walk, maxDataPoints=500, **newest(**neutral())),
        panel("table", "Rows of the last 10 s", (8, 6), walk, **NEWEST, **newest_first()),
        text(
            (10, 6),
            "Refresh, reload, pull the network cable, or end the plugin's process: the exact panels"
            " come back with every row. The stock panel shows what Grafana does without the"
            " plugin's own way of joining history and live rows.",
        ),
    )


def host() -> Json:
    """The source `host`."""
    percent = {"unit": "percent", "min": 0, "max": 100}
    levels = steps((None, "green"), (70, "orange"), (90, "red"))
    cpu, memory = query("cpu"), query("memory")
    net, disk = query("net", nic="${nic}"), query("disk", device="${device}")
    return dashboard(
        "host",
        "The machine that Grafana's plugin runs on: processor, memory, network and disks.",
        [text_box("nic", "Interface", "all"), text_box("device", "Disk", "all")],
        panel("stat", "Processor", (6, 4), cpu, **newest("busy", **percent, **levels)),
        panel("stat", "Load", (6, 4), cpu, **newest("load", **neutral())),
        panel("stat", "Memory", (6, 4), memory, **newest("used_share", **percent, **levels)),
        panel("stat", "Received", (6, 4), net, **newest("received", **neutral())),
        panel(
            "timeseries",
            "Processor",
            (12, 8),
            cpu,
            transformations=only("time", "user", "system", "iowait"),
            **lines(fill=30, stacked=True, unit="percent", min=0, max=100),
        ),
        panel(
            "timeseries",
            "Memory",
            (12, 8),
            memory,
            transformations=only("time", "used", "available", "swap_used"),
            **lines(fill=10, min=0),
        ),
        panel(
            "timeseries",
            "Network: $nic",
            (12, 8),
            net,
            transformations=only("time", "received", "sent"),
            **lines(fill=10, min=0),
        ),
        panel(
            "timeseries",
            "Disk: $device",
            (12, 8),
            disk,
            transformations=only("time", "read", "written"),
            **lines(fill=10, min=0),
        ),
    )


def file() -> Json:
    """The source `file`."""
    rows = query("rows", file="${file}")
    return dashboard(
        "file",
        "A growing NDJSON or CSV file: its earlier rows and each new line.",
        [text_box("file", "File", "today.ndjson")],
        panel(
            "timeseries",
            "Numbers of $file",
            (24, 9),
            rows,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "logs",
            "Lines of the last 10 s",
            (12, 11),
            query("lines", file="${file}"),
            **NEWEST,
            options=LOG_OPTIONS,
        ),
        panel(
            "table",
            "Rows of the last 10 s",
            (12, 11),
            rows,
            transformations=without("offset"),
            **NEWEST,
            **newest_first(),
        ),
    )


def mqtt() -> Json:
    """The source `mqtt`."""
    topics = query("topics", topic="${topic}")
    return dashboard(
        "mqtt",
        "Topics of an MQTT broker: retained messages first, then each new one.",
        [text_box("topic", "Topic", "home/+/climate")],
        panel(
            "timeseries",
            "Numbers of $topic, a series for each topic",
            (24, 9),
            topics,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel("stat", "Newest values", (12, 10), topics, maxDataPoints=500, **newest(**neutral())),
        panel(
            "table",
            "Messages of the last 10 s",
            (12, 10),
            query("topics", exact=False, topic="${topic}"),
            **NEWEST,
            **newest_first(),
        ),
    )


def redis() -> Json:
    """The source `redis`."""
    entries = query("entries", stream="${stream}")
    return dashboard(
        "redis",
        "Streams and channels of Redis: earlier entries, each new one, and what is published.",
        [
            text_box("stream", "Stream", "orders"),
            text_box("streams", "Streams", "orders*"),
            text_box("channel", "Channel", "news"),
        ],
        panel(
            "timeseries",
            "Numbers of the stream $stream",
            (24, 8),
            entries,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "timeseries",
            "Streams $streams, a series each",
            (12, 8),
            query("streams", exact=False, streams="${streams}"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "timeseries",
            "Published to $channel",
            (12, 8),
            query("channel", channel="${channel}"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "table",
            "Entries of the last 10 s",
            (24, 10),
            entries,
            transformations=without("id_ms", "id_seq"),
            **NEWEST,
            **newest_first(),
        ),
    )


def nats() -> Json:
    """The source `nats`."""
    stored = query("messages", stream="${stream}", filter="${filter}")
    return dashboard(
        "nats",
        "Streams of JetStream and subjects of NATS: earlier messages, and each new one.",
        [
            text_box("stream", "Stream", "ORDERS"),
            text_box("filter", "Subjects of the stream", ">"),
            text_box("subject", "Subject", "home.*"),
        ],
        panel(
            "timeseries",
            "Numbers of the stream $stream, a series for each subject",
            (24, 9),
            stored,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "timeseries",
            "Published to $subject",
            (12, 10),
            query("subjects", subject="${subject}"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "table",
            "Messages of the last 10 s",
            (12, 10),
            stored,
            transformations=without("sequence"),
            **NEWEST,
            **newest_first(),
        ),
    )


def postgres() -> Json:
    """The source `postgres`."""
    rows = query("rows", table="${table}")
    return dashboard(
        "postgres",
        "A table of PostgreSQL that grows, and payloads of NOTIFY.",
        [text_box("table", "Table", "readings"), text_box("channel", "Channel", "alarms")],
        panel(
            "timeseries",
            "Numbers of $table: no row missing, none twice",
            (24, 9),
            rows,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "table",
            "Rows of the last 10 s",
            (12, 10),
            rows,
            transformations=without("cursor_1", "cursor_2"),
            **NEWEST,
            **newest_first(),
        ),
        panel(
            "timeseries",
            "Notifications of $channel",
            (12, 10),
            query("notifications", channel="${channel}"),
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
    )


def http() -> Json:
    """The source `http`."""
    return messages(
        "http", "Server-Sent Events or lines of an HTTP answer, as they arrive.", "topic"
    )


def websocket() -> Json:
    """The source `websocket`."""
    return messages("websocket", "Messages of a WebSocket, as they arrive.", "symbol")


def push() -> Json:
    """The source `push`."""
    rows, table = query("rows", path="${path}"), query("table", path="${path}")
    return dashboard(
        "push",
        "Rows that programs push over HTTP: their history, and each new one.",
        [text_box("path", "Path", "lab/run-1")],
        panel(
            "timeseries",
            "Numbers of $path, a series for each set of labels",
            (24, 9),
            rows,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "stat",
            "Newest values",
            (8, 10),
            rows,
            transformations=without("cursor"),
            maxDataPoints=500,
            **newest(**neutral()),
        ),
        panel(
            "table",
            "Rows of the last 10 s",
            (16, 10),
            table,
            transformations=without("cursor"),
            **NEWEST,
            **newest_first(),
        ),
        text(
            (24, 3),
            'Push a row: `curl -H "Authorization: Bearer TOKEN" -d \'{"celsius": 21.5}\''
            " GRAFANA/api/datasources/uid/aiostream-push/resources/push/lab/run-1`"
            " with the token of a service account that has the role Editor.",
        ),
    )


def messages(source: str, description: str, name: str) -> Json:
    """A source whose query type `messages` has live rows only."""
    rows = query("messages", parameters=f"${{{name}}}")
    stock = query("messages", exact=False, parameters=f"${{{name}}}")
    return dashboard(
        source,
        description,
        [text_box(name, name.title(), "orders" if name == "topic" else "BTC-USD")],
        panel(
            "timeseries",
            f"Numbers of ${name}",
            (24, 9),
            rows,
            maxDataPoints=FIVE_MINUTES,
            **lines(),
        ),
        panel(
            "logs",
            "Messages of the last 10 s",
            (12, 10),
            rows,
            **NEWEST,
            options=LOG_OPTIONS,
        ),
        panel("table", "Rows of the last 10 s", (12, 10), stock, **NEWEST, **newest_first()),
    )


def only(*fields: str) -> list[Json]:
    """Keeps only these fields."""
    return [{"id": "filterFieldsByName", "options": {"include": {"names": list(fields)}}}]


def without(*fields: str) -> list[Json]:
    """Removes these fields, for tables and panels of single values: charts do not draw cursors, and
    a panel with this transformation has no notices of a frame without fields, such as that a file
    is missing."""
    return [{"id": "filterFieldsByName", "options": {"exclude": {"names": list(fields)}}}]


def newest_first() -> Json:
    """A table with the newest row at its top."""
    time = {
        "matcher": {"id": "byName", "options": "time"},
        "properties": [
            {"id": "unit", "value": "time:HH:mm:ss.SSS"},
            {"id": "custom.width", "value": 130},
        ],
    }
    return {
        "fieldConfig": {"defaults": {}, "overrides": [time]},
        "options": {"showHeader": True, "sortBy": [{"displayName": "time", "desc": True}]},
    }


def dashboard(source: str, description: str, variables: list[Json], *panels: Json) -> Json:
    """A dashboard. Panels are placed in reading order; a row is as high as its highest panel."""
    return {
        "title": f"aiostream {source}",
        "uid": f"aiostream-{source}",
        "description": description,
        "tags": ["aiostream"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "liveNow": True,
        "refresh": "",
        "time": {"from": "now-5m", "to": "now"},
        "timezone": "",
        "timepicker": {},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [picker(source), *variables]},
        "panels": list(laid_out(panels)),
    }


def picker(source: str) -> Json:
    """The variable with the data source of every panel.

    Its value is the data source's name in some versions of Grafana and its uid in others; each
    searches `text` and `value` for it.
    """
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "query": PLUGIN_ID,
        "regex": "",
        "options": [],
        "current": {"text": f"aiostream {source}", "value": f"aiostream-{source}"},
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "hide": 0,
    }


def laid_out(panels: Sequence[Json]) -> Iterator[Json]:
    x = y = tallest = 0
    for number, one in enumerate(panels, 1):
        size = one["gridPos"]
        if x + size["w"] > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        yield {"id": number, **one, "gridPos": {"x": x, "y": y, **size}}
        x, tallest = x + size["w"], max(tallest, size["h"])


def files() -> Iterator[tuple[Path, str]]:
    """Every file with its content."""
    for make in (demo, host, file, mqtt, nats, http, postgres, push, redis, websocket):
        model = make()
        name = f"{make.__name__}.json"
        yield OUT / name, json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def write(made: Iterable[tuple[Path, str]], *, check: bool) -> int:
    """Write the files that are stale, or only name them. The exit code."""
    stale = [(p, t) for p, t in made if not p.exists() or p.read_text("utf-8") != t]
    for path, content in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run scripts/dashboards", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(write(files(), check="--check" in sys.argv[1:]))
