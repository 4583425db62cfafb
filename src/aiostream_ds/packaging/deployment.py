"""Configuration that brings a package into Grafana: Helm, grafana-operator, compose and systemd.

Each text is complete for its purpose, and names what it does not know, such as a registry, only if
it was given.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.launchers import executable_name

__all__ = ["KINDS", "Origin", "describe_deployment"]

_PLUGINS = "/var/lib/grafana/plugins"
"""Grafana's plugin folder in its image, and of its Debian and RPM packages."""

_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9_.:/@\[\]-]*")

_URL = re.compile(r"https?://(?:[A-Za-z0-9._~:/?\[\]!$&'()*+=-]|%[0-9A-Fa-f]{2})+")
"""Without the characters at which Grafana ends an address: `,` and `@` separate the parts of its
list of plugins, `;` and `#` begin a comment in grafana.ini."""

_NOT_IN_FOLDERS = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")


class Origin(NamedTuple):
    """Where Grafana gets the package from: exactly one is not empty.

    Attributes:
        image: The reference of a container image that `package --oci` made.
        url: The address of the package's zip.
        folder: The absolute path of the package's folder on the machine that runs Grafana.
        init: With `image`: an init container copies the package, instead of an image volume.
    """

    image: str = ""
    url: str = ""
    folder: str = ""
    init: bool = False


def describe_deployment(kind: str, manifest: Mapping[str, Any], origin: Origin) -> str:
    """The configuration for one of KINDS; `manifest` is the package's plugin.json.

    Raises:
        PackagingError: This kind cannot have the package from there, or the value is not valid.
    """
    if kind not in KINDS:
        raise PackagingError(f"expected {', '.join(KINDS)}, got {kind!r}")
    given = [name for name in ("image", "url", "folder") if getattr(origin, name)]
    if len(given) != 1 or (origin.init and not origin.image):
        raise PackagingError(
            "expected exactly one of --image, --url and --folder, and --init only with --image, "
            f"got {', '.join(given) or 'none'}{' with --init' if origin.init else ''}"
        )
    if given[0] not in _ORIGINS[kind]:
        allowed = " or ".join(f"--{name}" for name in _ORIGINS[kind])
        raise PackagingError(f"{kind} needs {allowed}, got --{given[0]}")
    _check_origin(origin)
    return KINDS[kind](manifest, origin)


def _check_origin(origin: Origin) -> None:
    """Raises PackagingError for a value that Grafana would not read as it is."""
    if origin.image and not _IMAGE.fullmatch(origin.image):
        raise PackagingError(
            "--image must be the reference of a container image, such as "
            f"registry.example/acme-clock-datasource:0.1.0, got {origin.image!r}"
        )
    if origin.url and not _URL.fullmatch(origin.url):
        raise PackagingError(
            "--url must be an address with http:// or https:// and without , ; @ and #, at which "
            f"Grafana would end it, got {origin.url!r}; write %2C, %3B, %40 and %23 for them"
        )
    if _NOT_IN_FOLDERS.search(origin.folder):
        raise PackagingError(
            f"--folder must be text without control characters, got {origin.folder!r}"
        )


def _helm(manifest: Mapping[str, Any], origin: Origin) -> str:
    head = [
        "# Values for the chart grafana of grafana-community/helm-charts:",
        "# helm upgrade --install grafana grafana-community/grafana -f THIS_FILE",
        *_allowed(manifest, "grafana.ini"),
    ]
    if origin.url:
        return _lines(*head, "plugins:", f"  - {_quoted(_preinstall(manifest, origin))}")
    name = _volume_name(manifest)
    if origin.init:
        return _lines(
            *head,
            "extraInitContainers:",
            *_indent(2, _init_container(manifest, origin, "storage")),
        )
    return _lines(
        *head,
        "# not extraVolumes: the chart makes an empty folder of an image there",
        "extraContainerVolumes:",
        *_indent(2, _image_volume(name, origin)),
        "extraVolumeMounts:",
        *_indent(2, _mount(name, manifest)),
    )


def _operator(manifest: Mapping[str, Any], origin: Origin) -> str:
    head = [
        "# For grafana-operator: merge it into your resource Grafana, or apply it",
        "apiVersion: grafana.integreatly.org/v1beta1",
        "kind: Grafana",
        "metadata:",
        "  name: grafana",
        "spec:",
        *_indent(2, _allowed(manifest, "config")),
    ]
    if origin.url:
        preinstall = _quoted(_preinstall(manifest, origin))
        return _lines(*head, f"      preinstall_sync: {preinstall}")
    name = _volume_name(manifest)
    if origin.init:
        pod = [
            "volumes:",
            f"  - name: {name}",
            "    emptyDir: {}",
            "initContainers:",
            *_indent(2, _init_container(manifest, origin, name, "/plugins")),
            "containers:",
            "  - name: grafana",
            "    volumeMounts:",
            f"      - name: {name}",
            f"        mountPath: {_PLUGINS}/{manifest['id']}",
            f"        subPath: {manifest['id']}",
            "        readOnly: true",
        ]
    else:
        pod = [
            "volumes:",
            *_indent(2, _image_volume(name, origin)),
            "containers:",
            "  - name: grafana",
            "    volumeMounts:",
            *_indent(6, _mount(name, manifest)),
        ]
    return _lines(
        *head, "  deployment:", "    spec:", "      template:", "        spec:", *_indent(10, pod)
    )


def _compose(manifest: Mapping[str, Any], origin: Origin) -> str:
    identifier = manifest["id"]
    grafana = [
        "grafana:",
        "  image: docker.io/grafana/grafana",
        '  ports: ["3000:3000"]',
        "  environment:",
        f"    GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS: {identifier}",
    ]
    services, volumes = grafana, []
    if origin.url:
        preinstall = _compose_text(_preinstall(manifest, origin))
        grafana.append(f"    GF_PLUGINS_PREINSTALL_SYNC: {preinstall}")
    elif origin.folder:
        grafana += [
            "  volumes:",
            "    - type: bind",  # the short form ends a folder at a colon
            f"      source: {_compose_text(origin.folder)}",
            f"      target: {_PLUGINS}/{identifier}",
            "      read_only: true",
        ]
    else:
        grafana += [
            "  volumes:",
            f"    - plugins:{_PLUGINS}:ro",
            "  depends_on:",
            "    plugin:",
            "      condition: service_completed_successfully",
        ]
        services = [
            "plugin:  # copies the package into the volume, and ends",
            f"  image: {_quoted(origin.image)}",
            '  command: ["install", "/plugins"]',
            "  volumes:",
            "    - plugins:/plugins",
            *grafana,
        ]
        volumes = ["volumes:", "  plugins:"]
    return _lines(
        "# docker compose -f THIS_FILE up, or podman compose",
        "services:",
        *_indent(2, services),
        *volumes,
    )


def _systemd(manifest: Mapping[str, Any], origin: Origin) -> str:
    identifier = manifest["id"]
    lines = [
        f"# /etc/systemd/system/grafana-server.service.d/{identifier}.conf; afterwards:",
        "# systemctl daemon-reload && systemctl restart grafana-server",
        "[Service]",
        "# this replaces allow_loading_unsigned_plugins of grafana.ini: add the ids that it has",
        f"Environment=GF_PLUGINS_ALLOW_LOADING_UNSIGNED_PLUGINS={identifier}",
    ]
    if origin.url:
        variable = f"GF_PLUGINS_PREINSTALL_SYNC={_preinstall(manifest, origin)}"
        lines.append(f"Environment={_unit_word(variable)}")
    else:
        program = executable_name(manifest, "linux/amd64").removesuffix("amd64")
        lines += [
            "# copies the package at each start, so that a new version only needs a restart",
            "# (on another processor with the name of its launcher)",
            f"ExecStartPre=+{_unit_word(f'{origin.folder}/{program}amd64')} install {_PLUGINS}",
        ]
    return _lines(*lines)


KINDS: dict[str, Callable[[Mapping[str, Any], Origin], str]] = {
    "helm": _helm,
    "operator": _operator,
    "compose": _compose,
    "systemd": _systemd,
}
"""What can be configured: values of the Helm chart, a resource of grafana-operator, a compose file,
and a drop-in of the service grafana-server."""

_ORIGINS = {
    "helm": ("image", "url"),
    "operator": ("image", "url"),
    "compose": ("image", "url", "folder"),
    "systemd": ("folder", "url"),
}


def _allowed(manifest: Mapping[str, Any], section: str) -> list[str]:
    return [
        f"{section}:",
        "  plugins:",
        f"    allow_loading_unsigned_plugins: {manifest['id']}",
    ]


def _preinstall(manifest: Mapping[str, Any], origin: Origin) -> str:
    return f"{manifest['id']}@{manifest['info']['version']}@{origin.url}"


def _volume_name(manifest: Mapping[str, Any]) -> str:
    return str(manifest["id"])[:63].rstrip("-")  # Kubernetes allows no other ones


def _image_volume(name: str, origin: Origin) -> list[str]:
    return [f"- name: {name}", "  image:", f"    reference: {_quoted(origin.image)}"]


def _mount(name: str, manifest: Mapping[str, Any]) -> list[str]:
    path = f"{_PLUGINS}/{manifest['id']}"
    return [f"- name: {name}", f"  mountPath: {path}", "  readOnly: true"]


def _init_container(
    manifest: Mapping[str, Any], origin: Origin, volume: str, folder: str = _PLUGINS
) -> list[str]:
    """A container that copies the package; Grafana's own volume is mounted one folder above."""
    return [
        f"- name: {_volume_name(manifest)}",
        f"  image: {_quoted(origin.image)}",
        f'  args: ["install", "{folder}"]',
        "  volumeMounts:",
        f"    - name: {volume}",
        f"      mountPath: {folder}",
        *(["      subPath: plugins"] if folder == _PLUGINS else []),
    ]


def _quoted(text: str) -> str:
    """A string in YAML, which is that of JSON."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _compose_text(text: str) -> str:
    """A string in a compose file, in which $NAME is replaced by a variable."""
    return _quoted(text).replace("$", "$$")


def _unit_word(text: str) -> str:
    """A word in a unit of systemd, which replaces % in it, but no $ in a variable or in a
    program's path."""
    return _quoted(text).replace("%", "%%")


def _indent(count: int, lines: list[str]) -> list[str]:
    return [" " * count + line for line in lines]


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
