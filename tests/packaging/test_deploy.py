"""The configuration that `aiostream-ds deploy` prints, checked by the schemas of Kubernetes and
compose, and by systemd.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from aiostream_ds.packaging.deployment import KINDS, Origin, describe_deployment
from aiostream_ds.packaging.findings import PackagingError

from ..requirements import require
from .conftest import MAIN

MANIFEST: Mapping[str, Any] = {
    "id": "acme-plant-datasource",
    "name": "Plant",
    "executable": "gpx_acme_plant",
    "info": {"version": "1.2.3", "description": "", "author": {"name": "me"}, "logos": {}},
}
IMAGE = "registry.example:5000/acme-plant-datasource:1.2.3"
URL = "https://example.com/acme-plant-datasource-1.2.3.linux_amd64.zip"
PREINSTALL = f"acme-plant-datasource@1.2.3@{URL}"
FOLDER = "/srv/my plugins/acme-plant-datasource"
WHATEVER_A_URL_MAY_HAVE = "https://[2001:db8::1]:80/~a/$b/$(c)/d'e!f&g*h+i=%2C?j:k=l:"
WHATEVER_A_FOLDER_MAY_HAVE = """/srv/$HOME/${x}/a:b #c'd"e\\f, {{ g }} %h $$/ü"""


def described(kind: str, **origin: Any) -> Any:
    return yaml.safe_load(describe_deployment(kind, MANIFEST, Origin(**origin)))


def check_pod(pod: dict[str, Any]) -> None:
    """Check a pod in a Deployment by the schema of Kubernetes, which knows all fields."""
    containers = [{"image": "grafana/grafana", **one} for one in pod["containers"]]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "grafana"},
        "spec": {
            "selector": {"matchLabels": {"app": "grafana"}},
            "template": {
                "metadata": {"labels": {"app": "grafana"}},
                "spec": {**pod, "containers": containers},
            },
        },
    }
    kubernetes_validate.validate(deployment, "1.35", strict=True)
    names = {volume["name"] for volume in pod["volumes"]}
    mounted = [*pod["containers"], *pod.get("initContainers", ())]
    assert {m["name"] for one in mounted for m in one["volumeMounts"]} <= names


def helm_pod(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes of the values: it copies these lists, and has the volume `storage`."""
    storage = {"name": "storage", "mountPath": "/var/lib/grafana"}
    mounts = [storage, *values.get("extraVolumeMounts", ())]
    return {
        "volumes": [{"name": "storage", "emptyDir": {}}, *values.get("extraContainerVolumes", ())],
        "initContainers": values.get("extraInitContainers", []),
        "containers": [{"name": "grafana", "volumeMounts": mounts}],
    }


def test_the_helm_chart_mounts_the_image_as_the_plugins_folder() -> None:
    values = described("helm", image=IMAGE)
    check_pod(helm_pod(values))
    assert values["extraContainerVolumes"][0]["image"] == {"reference": IMAGE}
    path = "/var/lib/grafana/plugins/acme-plant-datasource"
    assert values["extraVolumeMounts"][0]["mountPath"] == path
    allowed = values["grafana.ini"]["plugins"]["allow_loading_unsigned_plugins"]
    assert allowed == "acme-plant-datasource"


def test_the_helm_chart_copies_the_image_into_grafanas_volume() -> None:
    values = described("helm", image=IMAGE, init=True)
    check_pod(helm_pod(values))
    (container,) = values["extraInitContainers"]
    assert container["args"] == ["install", "/var/lib/grafana/plugins"]
    assert container["volumeMounts"] == [
        {"name": "storage", "mountPath": "/var/lib/grafana/plugins", "subPath": "plugins"}
    ]


def test_the_helm_chart_preinstalls_a_url() -> None:
    assert described("helm", url=URL)["plugins"] == [PREINSTALL]


@pytest.mark.parametrize("init", [False, True])
def test_the_operators_pod_has_the_plugin(init: bool) -> None:
    resource = described("operator", image=IMAGE, init=init)
    assert (resource["apiVersion"], resource["kind"]) == (
        "grafana.integreatly.org/v1beta1",
        "Grafana",
    )
    pod = resource["spec"]["deployment"]["spec"]["template"]["spec"]
    check_pod(pod)
    (grafana,) = pod["containers"]
    path = "/var/lib/grafana/plugins/acme-plant-datasource"
    assert grafana["volumeMounts"][0]["mountPath"] == path
    if init:  # what it installs is what is mounted
        (container,) = pod["initContainers"]
        assert container["args"] == ["install", container["volumeMounts"][0]["mountPath"]]
        assert grafana["volumeMounts"][0]["subPath"] == "acme-plant-datasource"


def test_the_operator_preinstalls_a_url() -> None:
    plugins = described("operator", url=URL)["spec"]["config"]["plugins"]
    assert plugins["preinstall_sync"] == PREINSTALL


@pytest.mark.slow
@pytest.mark.parametrize(
    "origin", [{"image": IMAGE}, {"url": URL}, {"folder": FOLDER}], ids=["image", "url", "folder"]
)
def test_compose_files_follow_the_schema(origin: dict[str, Any]) -> None:
    composed = described("compose", **origin)
    schema = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(composed, json.loads(schema.read_text("utf-8")))
    grafana = composed["services"]["grafana"]
    identifier = "acme-plant-datasource"
    assert grafana["environment"]["GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS"] == identifier
    if "url" in origin:
        assert grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"] == PREINSTALL
    elif "folder" in origin:
        (volume,) = grafana["volumes"]
        assert volume["source"] == FOLDER
        assert volume["target"] == f"/var/lib/grafana/plugins/{identifier}"
    else:
        assert composed["services"]["plugin"]["command"] == ["install", "/plugins"]
        assert composed["volumes"].keys() == {"plugins"}


def test_a_url_is_read_as_it_is() -> None:
    expected = f"acme-plant-datasource@1.2.3@{WHATEVER_A_URL_MAY_HAVE}"
    kinds = ("helm", "operator", "compose")
    found = {kind: described(kind, url=WHATEVER_A_URL_MAY_HAVE) for kind in kinds}
    assert found["helm"]["plugins"] == [expected]
    assert found["operator"]["spec"]["config"]["plugins"]["preinstall_sync"] == expected
    environment = found["compose"]["services"]["grafana"]["environment"]
    assert without_variables(environment["GF_PLUGINS_PREINSTALL_SYNC"]) == expected
    origin = Origin(url=WHATEVER_A_URL_MAY_HAVE)
    line = describe_deployment("systemd", MANIFEST, origin).splitlines()[-1]
    assert shlex.split(line) == [
        f"Environment=GF_PLUGINS_PREINSTALL_SYNC={expected}".replace("%", "%%")
    ]


def test_compose_reads_a_folder_as_it_is() -> None:
    composed = described("compose", folder=WHATEVER_A_FOLDER_MAY_HAVE)
    (volume,) = composed["services"]["grafana"]["volumes"]
    assert without_variables(volume.pop("source")) == WHATEVER_A_FOLDER_MAY_HAVE
    assert volume == {
        "type": "bind",
        "target": "/var/lib/grafana/plugins/acme-plant-datasource",
        "read_only": True,
    }


def without_variables(text: str) -> str:
    """What Compose makes of a value: it replaces $NAME and ${NAME}, which must not be there."""
    return Template(text).substitute()


@pytest.mark.parametrize("origin", [{"url": URL}, {"folder": FOLDER}], ids=["url", "folder"])
def test_systemd_accepts_the_drop_in(tmp_path: Path, origin: dict[str, Any]) -> None:
    analyze = shutil.which("systemd-analyze")
    require("images", analyze is not None, "systemd-analyze is not installed: scripts/roots")
    (tmp_path / "grafana-server.service.d").mkdir()
    unit = tmp_path / "grafana-server.service"
    unit.write_text("[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/true\n")
    text = describe_deployment("systemd", MANIFEST, Origin(**origin))
    if "folder" in origin:
        assert FOLDER in text
        program = tmp_path / "a folder" / "gpx_acme_plant_linux_amd64"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        text = text.replace(FOLDER, str(program.parent))
        start = next(line for line in text.splitlines() if line.startswith("ExecStartPre=+"))
        words = shlex.split(start.partition("+")[2])
        assert words == [str(program), "install", "/var/lib/grafana/plugins"]
    (tmp_path / "grafana-server.service.d/plugin.conf").write_text(text)
    done = subprocess.run(
        [str(analyze), "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_gets_a_url_and_a_folder_as_they_are(tmp_path: Path) -> None:
    """systemd replaces % in a unit."""
    analyze = shutil.which("systemd-analyze")
    require("images", analyze is not None, "systemd-analyze is not installed: scripts/roots")
    url = "https://example.com/my%20plugins/a%2Fb.zip"
    lines = describe_deployment("systemd", MANIFEST, Origin(url=url)).splitlines()
    folder = tmp_path / "100 %h $HOME ${x} $$"
    lines += describe_deployment("systemd", MANIFEST, Origin(folder=str(folder))).splitlines()
    text = "\n".join(line for line in lines if line.startswith(("[", "Environment", "Exec")))
    folder.mkdir()
    (folder / "gpx_acme_plant_linux_amd64").write_text("#!/bin/sh\n")
    (folder / "gpx_acme_plant_linux_amd64").chmod(0o755)
    unit = tmp_path / "grafana-server.service"
    unit.write_text(f"[Unit]\nDefaultDependencies=no\n{text}\nExecStart=/bin/true\n")
    done = subprocess.run(
        [str(analyze), "verify", "--man=no", "--recursive-errors=no", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "my%%20plugins/a%%2Fb.zip" in text


def test_a_volume_has_a_name_that_kubernetes_allows() -> None:
    manifest = MANIFEST | {"id": f"acme-{'a' * 57}-b-datasource"}
    values = yaml.safe_load(describe_deployment("helm", manifest, Origin(image=IMAGE)))
    assert values["extraContainerVolumes"][0]["name"] == f"acme-{'a' * 57}"


@pytest.mark.parametrize(
    ("kind", "origin", "message"),
    [
        ("helm", Origin(), "expected exactly one of --image, --url and --folder"),
        ("helm", Origin(image=IMAGE, url=URL), "got image, url"),
        ("helm", Origin(url=URL, init=True), "--init only with --image, got url with --init"),
        ("helm", Origin(folder="/a"), "helm needs --image or --url, got --folder"),
        ("systemd", Origin(image=IMAGE), "systemd needs --folder or --url, got --image"),
        ("swarm", Origin(image=IMAGE), "expected helm, operator, compose, systemd, got 'swarm'"),
        ("compose", Origin(image="$REGISTRY/a"), "image, such as registry.example/acme-clock-"),
        ("helm", Origin(image="{{ .Values.a }}/b"), "got '{{ .Values.a }}/b'"),
        ("helm", Origin(url="example.com/a.zip"), "--url must be an address with http://"),
        ("helm", Origin(url="https://me:secret@example.com/a.zip"), "without , ; @ and #"),
        ("operator", Origin(url="https://example.com/a;b.zip"), "write %2C, %3B, %40 and %23"),
        ("operator", Origin(url="https://example.com/$__env{A}"), "got 'https://example.com/$__"),
        ("systemd", Origin(folder="/a\nb"), "text without control characters, got '/a\\nb'"),
    ],
)
def test_what_does_not_fit_is_named(kind: str, origin: Origin, message: str) -> None:
    with pytest.raises(PackagingError) as caught:
        describe_deployment(kind, MANIFEST, origin)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_prints_it_for_a_folder(tmp_path: Path, kind: str) -> None:
    (tmp_path / "plugin.json").write_text(json.dumps(MANIFEST | {"type": "datasource"}))
    words = ["deploy", kind, str(tmp_path), "--url", URL]
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=False
    )
    assert done.stdout == describe_deployment(kind, MANIFEST, Origin(url=URL)), done.stderr


@pytest.fixture(scope="module")
def chart() -> Path:
    """The folder of the chart grafana of grafana-community/helm-charts."""
    path = os.environ.get("AIOSTREAM_DS_HELM_CHART", "")
    require("helm", bool(path and shutil.which("helm")), "helm or its chart is missing")
    return Path(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "origin", [{"image": IMAGE}, {"image": IMAGE, "init": True}, {"url": URL}], ids=str
)
def test_helm_renders_the_values(chart: Path, tmp_path: Path, origin: dict[str, Any]) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(describe_deployment("helm", MANIFEST, Origin(**origin)))
    command = ["helm", "template", "x", chart, "-f", values, "--kube-version", "1.35.0"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kinds = {
        (found["kind"], found["metadata"]["name"]): found
        for found in yaml.safe_load_all(rendered)
        if found
    }
    about = kinds["ConfigMap", "x-grafana"]["data"]
    assert "allow_loading_unsigned_plugins = acme-plant-datasource" in about["grafana.ini"]
    pod = kinds["Deployment", "x-grafana"]["spec"]["template"]["spec"]
    (grafana,) = (one for one in pod["containers"] if one["name"] == "grafana")
    if "url" in origin:
        assert about["plugins"] == PREINSTALL
        (variable,) = (each for each in grafana["env"] if "PREINSTALL" in each["name"])
        assert variable["name"] == "GF_PLUGINS_PREINSTALL_SYNC"
        assert variable["valueFrom"]["configMapKeyRef"] == {"name": "x-grafana", "key": "plugins"}
    elif "init" in origin:
        (first,) = pod["initContainers"]
        assert (first["image"], first["args"][0]) == (IMAGE, "install")
        (mount,) = first["volumeMounts"]
        shared = {each["name"]: each["mountPath"] for each in grafana["volumeMounts"]}
        assert f"{shared[mount['name']]}/{mount['subPath']}" == mount["mountPath"]
    else:
        volumes = [each for each in pod["volumes"] if each.get("image")]
        assert [each["image"]["reference"] for each in volumes] == [IMAGE]
        mounts = {each["name"]: each for each in grafana["volumeMounts"]}
        mount = mounts[volumes[0]["name"]]
        assert mount["mountPath"] == "/var/lib/grafana/plugins/acme-plant-datasource"
        assert mount["readOnly"] is True
