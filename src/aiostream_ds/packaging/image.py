"""Writes container images of packages without a container engine: one tar that is an OCI layout and
an archive of `docker load`.

An image has one layer, the plugin's folder, at its root: it is made to be mounted as a volume, or
to copy itself with `install`.
"""

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from aiostream_ds.packaging.archive import EXECUTABLE, FILE, build_time
from aiostream_ds.packaging.compression import gzip
from aiostream_ds.packaging.launchers import executable_name

__all__ = ["IMAGE_PLATFORMS", "image_name", "write_image"]

IMAGE_PLATFORMS = ("linux/amd64", "linux/arm64")
"""The platforms of images whose files are the same for all."""

_TYPE = "application/vnd.oci.image."


class _Platform(NamedTuple):
    """The parts of one platform: descriptors as the specification of OCI images has them."""

    manifest: dict[str, Any]
    config: str
    layer: str


def image_name(manifest: Mapping[str, Any]) -> str:
    """The name that `docker load` gives an image: the plugin's id and version."""
    return f"{manifest['id']}:{re.sub(r'[^A-Za-z0-9_.-]', '-', manifest['info']['version'])}"


def write_image(target: Path, roots: Mapping[str, Path], manifest: Mapping[str, Any]) -> None:
    """Write an image of one or more platforms: platform, `linux/amd64` → the package's folder.

    `manifest` is the package's plugin.json. The same files give the same bytes, and the same folder
    is stored once.
    """
    blobs: dict[str, bytes] = {}
    layers: dict[Path, tuple[dict[str, Any], str]] = {}
    platforms = []
    for platform, root in roots.items():
        if root not in layers:
            layer = _layer(root)
            packed = _add(blobs, "layer.v1.tar+gzip", gzip(layer))
            layers[root] = packed, f"sha256:{hashlib.sha256(layer).hexdigest()}"
        platforms.append(_add_platform(blobs, platform, manifest, *layers[root]))
    index = {"schemaVersion": 2, "mediaType": f"{_TYPE}index.v1+json"}
    inner = _add(
        blobs, "index.v1+json", _json(index | {"manifests": [one.manifest for one in platforms]})
    )
    name, _, tag = image_name(manifest).partition(":")
    inner["annotations"] = {"org.opencontainers.image.ref.name": tag}
    first = platforms[0]  # `docker load` of older versions knows one platform
    docker = {"Config": first.config, "RepoTags": [f"{name}:{tag}"], "Layers": [first.layer]}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _json(index | {"manifests": [inner]}),
        "manifest.json": _json([docker]),
        **{_path(digest): content for digest, content in blobs.items()},
    }
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in ("blobs", "blobs/sha256"):
            archive.addfile(_info(folder, EXECUTABLE, is_folder=True))
        for name, content in sorted(files.items()):
            archive.addfile(_info(name, FILE, size=len(content)), io.BytesIO(content))


def _layer(root: Path) -> bytes:
    """A tar of the folder's content, owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            name, mode = path.relative_to(root).as_posix(), path.stat().st_mode & 0o777
            if path.is_dir():
                archive.addfile(_info(name, mode, is_folder=True))
            else:
                content = path.read_bytes()
                archive.addfile(_info(name, mode, size=len(content)), io.BytesIO(content))
    return buffer.getvalue()


def _info(name: str, mode: int, *, size: int = 0, is_folder: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime = mode, size, build_time()
    info.type = tarfile.DIRTYPE if is_folder else tarfile.REGTYPE
    return info


def _add_platform(
    blobs: dict[str, bytes],
    platform: str,
    plugin: Mapping[str, Any],
    layer: dict[str, Any],
    layer_content: str,
) -> _Platform:
    system, _, machine = platform.partition("/")
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(build_time()))
    made_by = "aiostream-ds package"
    config = {
        "created": created,
        "architecture": machine,
        "os": system,
        "config": {"Entrypoint": [f"/{executable_name(plugin, platform)}"], "Cmd": ["install"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_content]},
        "history": [{"created": created, "created_by": made_by}],
    }
    described = _add(blobs, "config.v1+json", _json(config))
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}manifest.v1+json",
        "config": described,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": plugin["name"],
            "org.opencontainers.image.version": plugin["info"]["version"],
        },
    }
    found = _add(blobs, "manifest.v1+json", _json(manifest))
    found["platform"] = {"architecture": machine, "os": system}
    return _Platform(found, _path(described["digest"]), _path(layer["digest"]))


def _add(blobs: dict[str, bytes], kind: str, content: bytes) -> dict[str, Any]:
    """Store a blob; returns its descriptor."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    blobs[digest] = content
    return {"mediaType": f"{_TYPE}{kind}", "digest": digest, "size": len(content)}


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
