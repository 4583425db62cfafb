"""The memory for queues, as Grafana passes its limits."""

import pytest

from aiostream_ds._channels.policy import INSTANCE_QUEUE_BYTES, QUEUE_BYTES
from aiostream_ds._process.queue_memory import queue_memory


def limits(environ):
    memory = queue_memory(environ)
    return memory.limit, memory.of_instance().limit


def test_the_limits_are_those_of_the_section_of_the_plugin(caplog):
    assert limits({}) == (QUEUE_BYTES, INSTANCE_QUEUE_BYTES)
    given = {"GF_PLUGIN_QUEUE_MIB": "512", "GF_PLUGIN_DATASOURCE_QUEUE_MIB": "1"}
    assert limits(given) == (512 << 20, 1 << 20)
    assert not caplog.records


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "64M", " 1", "٣", "1" * 100])
def test_an_invalid_limit_is_logged_and_the_default_used(text, caplog):
    assert limits({"GF_PLUGIN_QUEUE_MIB": text}) == (QUEUE_BYTES, INSTANCE_QUEUE_BYTES)
    (record,) = caplog.records
    assert "GF_PLUGIN_QUEUE_MIB must be a whole number from 1 to 9999999" in record.getMessage()
    assert "using 256" in record.getMessage()
