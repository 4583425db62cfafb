"""`aiostream-ds deploy KIND PACKAGE`: prints configuration that brings a package into Grafana."""

import argparse
import tempfile
from pathlib import Path

from aiostream_ds.cli.target import CommandError
from aiostream_ds.packaging.archive import unpack
from aiostream_ds.packaging.deployment import KINDS, Origin, describe_deployment
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.manifest import read_complete_manifest

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = command.add_argument
    add(
        "kind",
        choices=list(KINDS),
        help="values of the Helm chart, a resource of grafana-operator, a compose file, or a "
        "drop-in of the service grafana-server",
    )
    add("package", type=Path, metavar="PACKAGE", help="the folder or the zip of a package")
    add("--image", default="", metavar="REF", help="the image of `package --oci`, in a registry")
    add("--url", default="", help="the address of the package's zip")
    add("--folder", type=Path, metavar="DIR", help="the package's folder, on Grafana's machine")
    add(
        "--init",
        action="store_true",
        help="with --image: copy it with an init container, for Kubernetes without image volumes",
    )


def run(parsed: argparse.Namespace) -> int:
    """Print the configuration."""
    folder = "" if parsed.folder is None else str(parsed.folder.absolute())
    origin = Origin(parsed.image, parsed.url, folder, parsed.init)
    try:
        text = describe_deployment(parsed.kind, _manifest(parsed.package), origin)
    except PackagingError as error:
        raise CommandError(str(error)) from None
    print(text, end="")
    return 0


def _manifest(package: Path) -> dict[str, object]:
    if package.is_dir():
        return read_complete_manifest(package / "plugin.json")
    if not package.is_file():
        raise PackagingError(f"expected the folder or the zip of a package, got {str(package)!r}")
    with tempfile.TemporaryDirectory() as scratch:
        return read_complete_manifest(unpack(package, Path(scratch)) / "plugin.json")
