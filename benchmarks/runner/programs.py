"""Builds the measured programs in build/bench: the Go, Rust and Python ones.

The project is installed from a wheel into a new environment, as users install it.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .figures import OURS, WORKLOADS
from .machine import Interpreter, output

__all__ = ["BUILD", "PEERS", "ROOT", "Bench", "Program"]

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
BUILD = ROOT / "build" / "bench"
PEERS = ("go", "go-batch", "go-json", "rust", "grpc.aio")
"""The other servers."""

ISOLATED = "-IBXutf8"  # as a packaged executable starts its interpreter

PACKAGES = (
    *("aiostream-ds", "anyio", "betterproto2", "grpclib", "h2", "msgspec", "numpy", "orjson"),
    *("pyarrow", "uvloop", "grpcio", "protobuf"),
)
MODULES = (
    "github.com/grafana/grafana-plugin-sdk-go",
    "github.com/hashicorp/go-plugin",
    "google.golang.org/grpc",
)

_OTHERS = frozenset(WORKLOADS) - {"mixed", "messages"}  # of the peers in Rust and on grpc.aio

# Go module → its name in the results.
_NAMES = {MODULES[0]: "plugin SDK for Go", MODULES[1]: "go-plugin", MODULES[2]: "grpc-go"}


@dataclass(frozen=True, slots=True)
class Program:
    """A measured server: its command, factors that shorten its slow workloads, and which workloads
    it has (None: all)."""

    name: str
    command: tuple[str, ...]
    scales: dict[str, float] = field(default_factory=dict)
    workloads: frozenset[str] | None = None


class Bench:
    """All programs of a run; `skipped`: peer → why it is missing."""

    def __init__(self, python: Interpreter) -> None:
        self.programs: dict[str, Program] = {}
        self.skipped: dict[str, str] = {}
        self.client = BUILD / "bin" / "client"
        self.python = BUILD / f"venv-{python.version}" / "bin" / "python"
        self.packaged = ""
        self._source = python.path

    def build(self, peers: tuple[str, ...]) -> None:
        """Build everything.

        Raises:
            CalledProcessError: A required program cannot be built.
        """
        BUILD.mkdir(parents=True, exist_ok=True)
        self._go()
        self._environment()
        self._package()
        self._add(OURS, str(BENCHMARKS / "peer"))
        os.environ["AIOSTREAM_DS_PYTHON"] = str(self.python)  # for benchmarks/peer
        if "go-batch" in peers:
            merged = frozenset({"rows", "mixed", "messages"})
            self._add("go-batch", str(BUILD / "bin" / "plugin-batch"), workloads=merged)
        if "go-json" in peers:
            self._add("go-json", str(BUILD / "bin" / "plugin-json"))
        for name, make in (("rust", self._rust), ("grpc.aio", self._grpc_aio)):
            if name in peers:
                try:
                    make()
                except subprocess.CalledProcessError as error:
                    stderr = error.stderr or b""
                    text = stderr.decode() if isinstance(stderr, bytes) else stderr
                    self.skipped[name] = (text.strip().splitlines() or [str(error)])[-1]

    def versions(self) -> dict[str, str]:
        """The versions of everything that is measured."""
        script = (
            "import json, sys, importlib.metadata as m\n"
            f"print(json.dumps({{p: m.version(p) for p in {PACKAGES!r}}}))"
        )
        found = {"Go": output("go", "env", "GOVERSION").removeprefix("go")}
        for module in MODULES:
            text = output(
                *("go", "-C", BENCHMARKS / "go", "list", "-m", "-f", "{{.Version}}", module)
            )
            found[_NAMES[module]] = text.removeprefix("v")
        python: dict[str, str] = json.loads(output(self.python, "-I", "-c", script))
        found |= python
        lock = BUILD / "rust" / "Cargo.lock"
        if "rust" in self.programs and lock.exists():
            for block in lock.read_text("utf-8").split("[[package]]"):
                if 'name = "grafana-plugin-sdk"' in block:
                    found["plugin SDK for Rust"] = block.split('version = "')[1].split('"')[0]
        return found

    def command(self, name: str, workload: str) -> tuple[str, ...]:
        """The command for a workload; `cold` starts the packaged plugin."""
        if workload == "bare":
            return (str(self.python), ISOLATED, "-c", "import asyncio, grpclib.server")
        if workload == "cold" and name == OURS:
            return (self.packaged,)
        return self.programs[name].command

    def _add(
        self,
        name: str,
        *command: str,
        scales: dict[str, float] | None = None,
        workloads: frozenset[str] | None = None,
    ) -> None:
        self.programs[name] = Program(name, command, scales or {}, workloads)

    def _go(self) -> None:
        if not shutil.which("go"):
            raise SystemExit(
                "expected go on PATH for the load client and the reference; install Go"
            )
        _run("go", "-C", BENCHMARKS / "go", "build", "-o", f"{BUILD / 'bin'}/", "./...")
        self._add("go", str(BUILD / "bin" / "plugin"))

    def _environment(self) -> None:
        stamp = self.python.parents[1] / ".lock"
        lock = ROOT / "requirements" / "bench.txt"
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        into = [*pip, "--python", str(self.python)]
        if not self.python.exists():
            _run(self._source, "-m", "venv", "--without-pip", self.python.parents[1])
        if not stamp.exists() or stamp.read_text("utf-8") != lock.read_text("utf-8"):
            _run(*into, "install", "--require-hashes", "-r", lock)
            stamp.write_text(lock.read_text("utf-8"), "utf-8")
        wheels = BUILD / "wheels"
        shutil.rmtree(wheels, ignore_errors=True)
        _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT)
        _run(*into, "install", "--no-deps", "--force-reinstall", *wheels.glob("*.whl"))

    def _package(self) -> None:
        out = BUILD / "packaged" / "aiostream-ds-datasource"  # named after the plugin's id
        environ = {**os.environ, "AIOSTREAM_DS_PYTHON": str(self.python)}
        _run(ROOT / "scripts" / "package", out, environ=environ)
        (executable,) = out.glob("gpx_*")
        self.packaged = str(executable)

    def _rust(self) -> None:
        if not shutil.which("cargo"):
            self.skipped["rust"] = "cargo is not installed"
            return
        # A copy, because cargo writes its lock next to the manifest.
        shutil.copytree(BENCHMARKS / "rust", BUILD / "rust", dirs_exist_ok=True)
        target = BUILD / "rust" / "target"
        manifest = BUILD / "rust" / "Cargo.toml"
        command = ("cargo", "build", "--release", "--quiet", "--manifest-path", manifest)
        _run(*command, environ={**os.environ, "CARGO_TARGET_DIR": str(target)})
        self._add("rust", str(target / "release" / "plugin-rust"), workloads=_OTHERS)

    def _grpc_aio(self) -> None:
        out = BUILD / "grpcaio"
        shutil.copytree(BENCHMARKS / "grpcaio", out, dirs_exist_ok=True)
        protoc = (sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "protos")
        _run(*protoc, f"--python_out={out}", "backend.proto")
        launch = f"import runpy, sys; sys.path.insert(0, {str(out)!r}); "
        launch += f"runpy.run_path({str(out / 'plugin.py')!r}, run_name='__main__')"
        # Fewer packets for slow workloads: rates are compared.
        scales = {"b1x2": 0.05, "b1x2s8": 0.1, "b100x5": 0.3, "b100x5s8": 0.3, "rows": 0.02}
        self._add(
            "grpc.aio", str(self.python), ISOLATED, "-c", launch, scales=scales, workloads=_OTHERS
        )


def _run(*command: object, environ: dict[str, str] | None = None) -> None:
    subprocess.run([str(c) for c in command], check=True, env=environ, capture_output=True)
