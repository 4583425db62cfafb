"""protos/*.proto against the declarations of the newest SDK, Grafana 9.4's SDK (v0.147.0) and
go-plugin."""

import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

pytestmark = pytest.mark.go

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pluginv2", "plugin", "grpc.health.v1")
SERVED = ("Data", "Stream", "Resource", "Diagnostics")  # of pluginv2; the others are UNIMPLEMENTED

type_names = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}

Packages = dict[str, Any]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The project's .proto files in the format of the Go programs' output."""
    out = tmp_path_factory.mktemp("descriptors") / "set.pb"
    include = resources.files("grpc_tools") / "_proto"
    sources = sorted(map(str, (ROOT / "protos").glob("*.proto")))
    arguments = [f"-I{ROOT / 'protos'}", f"-I{include}", f"--descriptor_set_out={out}", *sources]
    assert protoc.main(["protoc", *arguments]) == 0
    packages: Packages = {name: {"messages": {}, "enums": {}, "services": {}} for name in PACKAGES}
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        package = packages[file.package]
        for message in file.message_type:
            add_message(package, message.name, message)
        for enum in file.enum_type:
            add_enum(package, enum.name, enum)
        for service in file.service:
            package["services"][service.name] = {
                method.name: [
                    method.input_type.removeprefix("."),
                    method.output_type.removeprefix("."),
                    method.client_streaming,
                    method.server_streaming,
                ]
                for method in service.method
            }
    return packages


@pytest.fixture(scope="module")
def newest(host_binary: Path) -> Packages:
    return read(host_binary, "descriptors")


@pytest.fixture(scope="module")
def oldest(sdk0147_binary: Path) -> Packages:
    return read(sdk0147_binary)


def read(*command: str | Path) -> Packages:
    packages = json.loads(subprocess.check_output(command))
    assert isinstance(packages, dict)
    return packages


def add_message(package: Packages, name: str, message: DescriptorProto) -> None:
    entries = {nested.name: nested for nested in message.nested_type}
    package["messages"][name] = {
        field.name: [field.number, type_of(field, entries)] for field in message.field
    }
    for nested in message.nested_type:
        if not nested.options.map_entry:
            add_message(package, f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        add_enum(package, f"{name}.{enum.name}", enum)


def add_enum(package: Packages, name: str, enum: EnumDescriptorProto) -> None:
    package["enums"][name] = {value.name: value.number for value in enum.value}


def type_of(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    element: str = field.type_name.removeprefix(".") or type_names[field.type]
    if field.label != FieldDescriptorProto.LABEL_REPEATED:
        return element
    entry = entries.get(element.rpartition(".")[2])
    if entry is not None and entry.options.map_entry:
        key, value = (type_of(part, {}) for part in entry.field)
        return f"map<{key},{value}>"
    return f"repeated {element}"


def subset(part: Packages, whole: Packages) -> list[str]:
    """The declarations of ``part`` that are missing or different in ``whole``."""
    return [
        f"{package} {kind} {name}.{member}: {value}, not {found.get(member)}"
        for package, kinds in part.items()
        for kind, names in kinds.items()
        for name, members in names.items()
        for found in (whole[package][kind].get(name, {}),)
        for member, value in members.items()
        if found.get(member) != value
    ]


def contradictions(one: Packages, other: Packages) -> list[str]:
    """The names and numbers that both declare differently."""
    problems = []
    for package, kinds in one.items():
        for kind, names in kinds.items():
            for name, members in names.items():
                theirs = other[package][kind].get(name, {})
                shared = members.keys() & theirs.keys()
                problems += [f"{package} {name}.{m}" for m in shared if members[m] != theirs[m]]
                if kind != "services":
                    by_number = {number_of(value): m for m, value in theirs.items()}
                    problems += [
                        f"{package} {name}: {number} is {m} and {by_number[number]}"
                        for m, number in ((m, number_of(value)) for m, value in members.items())
                        if by_number.get(number, m) != m
                    ]
    return problems


def number_of(value: list[Any] | int) -> int:
    return int(value if isinstance(value, int) else value[0])


def reachable(package: Packages, services: tuple[str, ...]) -> Packages:
    """The services, and all messages and enums that their methods use."""
    wanted = {
        kind.rpartition(".")[2]
        for service in services
        for method in package["services"][service].values()
        for kind in method[:2]
    }
    known = package["messages"] | package["enums"]
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        seen.add(name)
        for field in package["messages"].get(name, {}).values():
            for word in field[1].replace("<", " ").replace(">", " ").replace(",", " ").split():
                short = word.removeprefix("pluginv2.")
                if short in known and short not in seen:
                    wanted.add(short)
    return {
        "services": {name: package["services"][name] for name in services},
        "messages": {n: m for n, m in package["messages"].items() if n in seen},
        "enums": {n: e for n, e in package["enums"].items() if n in seen},
    }


def test_all_our_declarations_exist_in_the_newest_sdk(ours: Packages, newest: Packages) -> None:
    assert subset(ours, newest) == []


def test_served_services_are_declared_completely(ours: Packages, newest: Packages) -> None:
    served = reachable(newest["pluginv2"], SERVED)
    assert {"PluginContext", "DataQuery", "StreamPacket"} <= served["messages"].keys()
    assert {"DataFrameFormat", "CheckHealthResponse.HealthStatus"} <= served["enums"].keys()
    assert subset({"pluginv2": served}, ours) == []


def test_go_plugins_own_services_are_declared_completely(ours: Packages, newest: Packages) -> None:
    assert {"GRPCController", "GRPCBroker", "GRPCStdio"} <= newest["plugin"]["services"].keys()
    assert subset({"plugin": newest["plugin"]}, ours) == []


def test_our_declarations_do_not_contradict_the_sdk_of_grafana_9_4(
    ours: Packages, oldest: Packages
) -> None:
    assert oldest["pluginv2"]["messages"]["PluginContext"]["orgId"] == [1, "int64"]
    assert contradictions(ours, oldest) == []
    assert contradictions(oldest, ours) == []


def test_all_declarations_of_grafana_9_4_exist(ours: Packages, oldest: Packages) -> None:
    assert subset({name: oldest[name] for name in ("pluginv2", "plugin")}, ours) == []


@pytest.mark.parametrize(
    ("change", "contradicts"),
    [
        pytest.param({"name": [7, "string"]}, True, id="another number"),
        pytest.param({"name": [2, "bytes"]}, True, id="another type"),
        pytest.param({"nick": [9, "string"]}, False, id="a new field"),
        pytest.param({"nick": [1, "string"]}, True, id="a number with another name"),
    ],
)
def test_the_comparison_finds_a_planted_difference(
    ours: Packages, newest: Packages, change: dict[str, Any], contradicts: bool
) -> None:
    planted = json.loads(json.dumps(ours))
    planted["pluginv2"]["messages"]["User"].update(change)
    assert subset(planted, newest) != []
    assert bool(contradictions(planted, newest)) is contradicts
