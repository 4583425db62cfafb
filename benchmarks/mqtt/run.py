"""Compares the source `mqtt` with a Go plugin in the way of grafana/mqtt-datasource: processor time
for each message and memory, in turns.

    python -m benchmarks.mqtt.run [--rate 10000] [--seconds 20] [--rounds 3]

Needs Go and Mosquitto. The built plugin of this checkout runs with the interpreter of this script.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.servers import Mosquitto

from aiostream_ds.sources.mqtt.broker_connection import BrokerConnection, ConnectOptions

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "bench/climate"
SERVE = "from aiostream_ds.sources.builtin_plugin import main; main()"


async def publish(port: int, rate: float) -> None:
    """Publish with QoS 0 until the process is ended."""
    options = ConnectOptions(
        "127.0.0.1", port, None, Mosquitto.login, Mosquitto.password, "bench", 60
    )
    connection = await BrokerConnection.open(options)
    number, start = 0, time.monotonic()
    while True:
        due = int((time.monotonic() - start) * rate)
        for n in range(number, due):
            payload = b'{"n": %d, "celsius": 21.5, "humidity": 60}' % n
            await connection.publish(TOPIC, payload, qos=0, retain=False)
        number = due
        await asyncio.sleep(0.005)


def measure(client: Path, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The result of one run of the load client."""
    done = subprocess.run(
        [client, "-w", "topics", "-stderr", "/dev/stderr", "--", *command],
        env=os.environ | environment, check=True, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.publish:
        asyncio.run(publish(options.publish, options.rate))
    with tempfile.TemporaryDirectory() as folder, Mosquitto() as broker:
        for module, package in (("go", "client"), ("mqtt", "peer")):
            subprocess.run(
                ["go", "-C", ROOT / "benchmarks" / module, "build", "-o", folder, f"./{package}"],
                check=True,
            )
        server = {"host": "127.0.0.1", "port": broker.port, "user": broker.login}
        common = {"BENCH_SECONDS": str(options.seconds), "BENCH_PASSWORD": broker.password}
        encoded = base64.urlsafe_b64encode(TOPIC.encode()).decode().rstrip("=")
        runs = {
            "go": (
                [f"{folder}/peer"],
                {"URI": f"tcp://127.0.0.1:{broker.port}", "user": broker.login, "topic": TOPIC},
            ),
            "QoS 0": (
                [sys.executable, "-c", SERVE],
                {"source": "mqtt", "qos": 0, "discover": "", **server},
            ),
            "QoS 1 with a session": (
                [sys.executable, "-c", SERVE],
                {"source": "mqtt", "qos": 1, "discover": "", **server},
            ),
        }
        publisher = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.mqtt.run", "--publish", str(broker.port)]
            + ["--rate", str(options.rate)],
            cwd=ROOT,
        )
        try:
            results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
            for _ in range(options.rounds):
                for name, (command, settings) in runs.items():
                    environment = common | {
                        "BENCH_SETTINGS": json.dumps(settings),
                        "BENCH_PATH": f"topics/{encoded}",
                    }
                    results[name].append(measure(Path(folder) / "client", command, environment))
                    print(name, json.dumps(results[name][-1]), flush=True)
        finally:
            publisher.kill()
            publisher.wait()
    for name in list(runs)[1:]:
        pairs = zip(results[name], results["go"], strict=True)
        ratios = [one["cpu_us_per_row"] / other["cpu_us_per_row"] for one, other in pairs]
        print(f"{name}: processor time for each message / go: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
