"""Writes the dashboard of the plugin's own metrics: builtin/provisioning/dashboards/metrics.

It reads Prometheus, which scrapes `/metrics/plugins/<id>` of Grafana: it works for every plugin
that is made with aiostream_ds.
"""

import json
import sys
from typing import Any

from dashboards import (
    OUT,
    SCHEMA_VERSION,
    Json,
    laid_out,
    lines,
    neutral,
    newest,
    panel,
    steps,
    write,
)

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}

SELECTED = '{instance=~"$instance"}'


def rate(metric: str, by: str = "") -> str:
    """PromQL: what a counter grows by in a second, of all instances or by a label."""
    total = f"sum by ({by}) " if by else "sum"
    return f"{total}(rate(aiostream_ds_{metric}{SELECTED}[$__rate_interval]))"


def total(metric: str, by: str = "") -> str:
    """PromQL: the sum of a gauge, of all instances or by a label."""
    return f"{f'sum by ({by}) ' if by else 'sum'}(aiostream_ds_{metric}{SELECTED})"


def highest(metric: str) -> str:
    """PromQL: a gauge by instance."""
    return f"max by (instance) (aiostream_ds_{metric}{SELECTED})"


def metrics_panel(
    kind: str, title: str, size: tuple[int, int], expressions: dict[str, str], **rest: Any
) -> Json:
    """A panel with PromQL expressions by legend."""
    targets = [
        {"refId": letter, "datasource": PROMETHEUS, "expr": each, "legendFormat": legend}
        for letter, (legend, each) in zip("ABCDEFGH", expressions.items(), strict=False)
    ]
    return panel(kind, title, size, datasource=PROMETHEUS, targets=targets, **rest)


def stat(title: str, expression: str, look: Json) -> Json:
    """A panel with one number."""
    return metrics_panel("stat", title, (6, 4), {"": expression}, **newest(**look))


def row(title: str) -> Json:
    """The title of the panels that follow."""
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"w": 24, "h": 1},
    }


def panels() -> list[Json]:
    """The panels in reading order."""
    third, half = (8, 8), (12, 8)
    degraded = steps((None, "green"), (1, "orange"))
    durations = (
        "histogram_quantile(0.99, sum by (endpoint, le) "
        f"(rate(aiostream_ds_request_duration_seconds_bucket{SELECTED}[$__rate_interval])))"
    )
    return [
        stat("Streams", total("streams_running"), neutral()),
        stat("Subscriptions", total("subscriptions"), neutral()),
        stat("Degraded streams", total("streams_degraded"), degraded),
        stat("Rows a second", rate("rows_total"), neutral()),
        metrics_panel(
            "timeseries",
            "Rows and packets a second",
            half,
            {"rows": rate("rows_total"), "packets": rate("packets_total")},
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "What was lost or left out, a second",
            half,
            {
                "dropped for slow subscribers": rate("rows_dropped_total"),
                "left out: {{reason}}": rate("dropped_total", "reason"),
                "missing": rate("rows_missing_total"),
                "gaps": rate("gaps_total"),
            },
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "Errors and restarts a second",
            third,
            {
                "errors: {{kind}}": rate("stream_errors_total", "kind"),
                "restarts": rate("stream_retries_total"),
                "stuck": rate("streams_stuck_total"),
            },
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "Duration of Grafana's calls, 99 %",
            third,
            {"{{endpoint}}": durations},
            **lines(unit="s", min=0),
        ),
        metrics_panel(
            "timeseries",
            "Queues of slow subscribers",
            third,
            {"used": total("queue_bytes"), "limit": total("queue_bytes_limit")},
            **lines(unit="bytes", min=0),
        ),
        row("Cluster"),
        metrics_panel(
            "timeseries",
            "Shared channels, by role",
            third,
            {
                "{{role}}": total("cluster_channels", "role"),
                "upstreams": total("cluster_upstreams"),
            },
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "Nodes",
            third,
            {
                "seen by {{instance}}": highest("cluster_nodes"),
                "connected": total("cluster_connected"),
            },
            **lines(min=0, decimals=0),
        ),
        metrics_panel(
            "timeseries",
            "Lag in messages",
            third,
            {"{{instance}}": highest("cluster_lag")},
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "Takeovers and outages a second",
            half,
            {
                "takeovers": rate("cluster_takeovers_total"),
                "taken by another node": rate("cluster_fencings_total"),
                "outages": rate("cluster_outages_total"),
                "lost messages of the server": rate("cluster_losses_total"),
                "filled from the source": rate("cluster_fills_total"),
                "resets": rate("cluster_resets_total"),
                "messages too large": rate("cluster_messages_too_large_total"),
            },
            **lines(min=0),
        ),
        metrics_panel(
            "timeseries",
            "Lease and round trip",
            half,
            {
                "age of the lease {{instance}}": highest("cluster_lease_age_seconds"),
                "round trip {{instance}}": highest("cluster_round_trip_seconds"),
            },
            **lines(unit="s", min=0),
        ),
    ]


def variables() -> list[Json]:
    """The Prometheus, and the Grafana servers."""
    metric = "label_values(aiostream_ds_streams_running, instance)"
    return [
        {
            "type": "datasource",
            "name": "datasource",
            "label": "Prometheus",
            "query": "prometheus",
            "current": {},
            "options": [],
            "regex": "",
            "refresh": 1,
            "hide": 0,
            "multi": False,
            "includeAll": False,
        },
        {
            "type": "query",
            "name": "instance",
            "label": "Grafana server",
            "datasource": PROMETHEUS,
            "definition": metric,
            "query": {"query": metric, "refId": "instance"},
            "current": {"text": "All", "value": "$__all"},
            "options": [],
            "regex": "",
            "refresh": 2,
            "sort": 1,
            "hide": 0,
            "multi": True,
            "includeAll": True,
        },
    ]


def dashboard() -> Json:
    """The dashboard of a plugin's metrics."""
    return {
        "title": "aiostream metrics",
        "uid": "aiostream-metrics",
        "description": "The metrics of plugins that are made with aiostream_ds, from Prometheus.",
        "tags": ["aiostream"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "timepicker": {},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": variables()},
        "panels": list(laid_out(panels())),
    }


FILES = {
    OUT.with_name("metrics") / "process.json": json.dumps(dashboard(), indent=2, ensure_ascii=False)
    + "\n"
}

if __name__ == "__main__":
    sys.exit(write(FILES.items(), check="--check" in sys.argv[1:]))
