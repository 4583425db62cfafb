"""The files of the built-in plugin: at the top of the repository and in its folder `builtin`, in an
installed wheel in `packaging/builtin`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["builtin_file", "builtin_folder", "importable_dashboards"]

_INSTALLED = Path(__file__).parent / "builtin"
_CHECKOUT = Path(__file__).parents[3]

_DATA_SOURCE_INPUT = "DS_AIOSTREAM"


def builtin_folder(name: str) -> Path:
    """A folder, for example `provisioning`.

    Raises:
        PackagingError: This installation does not have it.
    """
    return _find(name, Path.is_dir)


def builtin_file(name: str) -> Path:
    """`plugin.json`, `README.md`, `CHANGELOG.md`, `LICENSE` or `img/logo.svg`.

    Raises:
        PackagingError: This installation does not have it.
    """
    return _find(name, Path.is_file)


def importable_dashboards() -> dict[str, bytes]:
    """The dashboards for the tab Dashboards of a data source (plugin.json `includes`), by path.

    They are made from the provisioned ones. Grafana inserts the data source of the tab. They have
    no uid, so that a provisioned and an imported copy are two dashboards.
    """
    found = {}
    plugin: dict[str, Any] = msgspec.json.decode(builtin_file("plugin.json").read_bytes())
    for path in sorted(builtin_folder("provisioning/dashboards/aiostream").glob("*.json")):
        model = msgspec.json.decode(path.read_bytes())
        del model["uid"]
        value = f"${{{_DATA_SOURCE_INPUT}}}"
        model["templating"]["list"][0]["current"] = {"text": value, "value": value}
        needed = {
            "name": _DATA_SOURCE_INPUT,
            "label": plugin["name"],
            "type": "datasource",
            "pluginId": plugin["id"],
            "pluginName": plugin["name"],
        }
        text = msgspec.json.format(msgspec.json.encode({"__inputs": [needed], **model}))
        found[f"dashboards/{path.name}"] = text + b"\n"
    return found


def _find(name: str, exists: Callable[[Path], bool]) -> Path:
    for folder in (_INSTALLED, _CHECKOUT, _CHECKOUT / "builtin"):
        if exists(folder / name):
            return folder / name
    raise PackagingError(f"expected {name} in this installation of aiostream-ds; install it again")
