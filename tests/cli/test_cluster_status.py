"""`aiostream-ds cluster status`, against real servers."""

import asyncio
import json
import re

import pytest
import pytest_asyncio

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._cluster.engine import Entry, EntryId
from aiostream_ds.cli import main
from tests.servers import Nats, Redis


@pytest.fixture(params=[Redis, Nats])
def server(request, monkeypatch):
    with request.param() as server:
        monkeypatch.setenv("GF_PLUGIN_CLUSTER_URL", server.url)
        yield server


@pytest_asyncio.fixture
async def term(server: Redis | Nats) -> int:
    """Two nodes follow a channel, which the first one owns in this term."""
    settings = cluster_settings({"GF_PLUGIN_CLUSTER_URL": server.url})
    engine = cluster_access(settings).engine
    await engine.open()
    for node in ("one", "two"):
        await engine.renew(node, 60)
        await engine.enter("rows", node)
    taken = await engine.take("rows", "one", b"hello")
    entry = Entry(EntryId(taken.term, 1), EntryId(taken.term, 0), b"row")
    await engine.append("rows", entry)
    await engine.aclose()
    return taken.term


@pytest.mark.slow
def test_nodes_and_channels_are_printed(server, term, capsys):
    size = 8 if isinstance(server, Redis) else None  # NATS does not report it
    assert main(["cluster", "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 nodes in the cluster aiostream-ds",
        "  one: owns 1, has viewers of 1",
        "  two: owns 0, has viewers of 1",
        "1 channel",
        f"  rows: owner one, term {term}, viewers on 2 nodes, 2 messages"
        + (", 8 bytes" if size else ""),
    ]
    assert main(["cluster", "status", "--json"]) == 0
    (channel,) = json.loads(capsys.readouterr().out)["channels"]
    assert channel | {"subscribed": sorted(channel["subscribed"])} == {
        "channel": "rows",
        "owner": "one",
        "term": term,
        "subscribed": ["one", "two"],
        "entries": 2,
        "size": size,
        "left": None,
    }
    url = server.url if isinstance(server, Redis) else server.admin_url
    assert main(["cluster", "status", "--url", url, "--name", "another"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["0 nodes in the cluster another", "0 channels"]


@pytest.mark.slow
async def test_logs_that_are_kept_after_the_last_viewer_are_printed_with_their_time(server, capsys):
    settings = cluster_settings({"GF_PLUGIN_CLUSTER_URL": server.url})
    engine = cluster_access(settings).engine
    await engine.open()
    await engine.renew("one", 60)
    await engine.enter("rows", "one")
    taken = await engine.take("rows", "one", b"hello")
    await engine.resign("rows", "one", taken.term)
    await engine.leave("rows", "one")
    await engine.aclose()
    assert await asyncio.to_thread(main, ["cluster", "status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        "1 node in the cluster aiostream-ds",
        "  one: owns 0, has viewers of 0",
        "0 channels",
        "1 log kept after the last viewer",
    ]
    size, kept = (", 5 bytes", 600) if isinstance(server, Redis) else ("", 3600)
    found = re.fullmatch(rf"  rows: \d messages?{size}, (\d+) s left", lines[-1])
    assert found, lines[-1]
    assert kept - 30 < int(found[1]) <= kept


@pytest.mark.slow
def test_looking_at_a_cluster_changes_no_stream_of_nats(monkeypatch, capsys):
    with Nats() as server:
        assert main(["cluster", "status", "--url", server.url]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines == ["0 nodes in the cluster aiostream-ds", "0 channels"]
        assert server.stream_names() == []


def test_without_an_address_the_option_is_named(monkeypatch, capsys):
    monkeypatch.delenv("GF_PLUGIN_CLUSTER_URL", raising=False)
    assert main(["cluster", "status"]) == 2
    assert "--url, or GF_PLUGIN_CLUSTER_URL" in capsys.readouterr().err


def test_a_server_that_is_away_is_named(capsys):
    assert main(["cluster", "status", "--url", "redis://127.0.0.1:1"]) == 1
    assert "127.0.0.1:1 refuses the connection" in capsys.readouterr().err
