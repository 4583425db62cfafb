"""How the optional packages of this distribution are installed."""

from typing import Any

import msgspec

__all__ = ["install_command"]


def install_command(*extras: str) -> str:
    """The command that installs extras from where this package was installed from.

    A package that was installed from a folder or a repository may not be in an index, and that of
    the index may be another version.
    """
    # slow to import, and a plugin does not need them
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    wanted = f"[{','.join(extras)}]"
    try:
        text = distribution("aiostream-ds").read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    origin: dict[str, Any] = msgspec.json.decode(text) if text else {}
    url = origin.get("url", "")
    if url.startswith("file://") and origin.get("dir_info", {}).get("editable"):
        return f'pip install -e "{url2pathname(urlsplit(url).path)}{wanted}"'
    if url:
        system = origin.get("vcs_info", {}).get("vcs", "")
        commit = origin.get("vcs_info", {}).get("commit_id", "")
        where = f"{system}+{url}@{commit}" if system else url
        return f'pip install "aiostream-ds{wanted} @ {where}"'
    return f'pip install "aiostream-ds{wanted}"'
