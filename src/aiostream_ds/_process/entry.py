"""The start of a plugin process. `import aiostream_ds` imports no other module of this package."""

import json
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from aiostream_ds.errors import ConfigError

if TYPE_CHECKING:
    from aiostream_ds._grafana.catalog import Target

__all__ = ["load_runtime", "serve"]


def serve(target: "Target", *, by: str | None = None) -> NoReturn:
    """Run the plugin process that Grafana starts. The last line of an author's program.

    `target` is a DataSource class, or a mapping of names to classes; then the data source's setting
    `by` holds the name. With the argument `--standalone` the process serves on a private socket,
    for a debugger. Without a host and without `--standalone` it prints how it is used and exits
    with status 1.

    Raises TypeError when `target` is neither, or when `by` does not fit it.
    """
    load_runtime()
    from aiostream_ds._grafana.catalog import Catalog
    from aiostream_ds._process.runtime import serve_loaded

    catalog = Catalog(target, by)
    serve_loaded(lambda: catalog)


def load_runtime() -> None:
    """Import the modules of a plugin process. Exits with status 1 and a message on stderr when the
    version of a package does not fit.

    Raises ModuleNotFoundError for a package that is not installed.
    """
    from aiostream_ds._process.betterproto_import import import_betterproto2

    try:
        import_betterproto2()
        import aiostream_ds._process.runtime  # noqa: F401
    except ConfigError as error:
        text = f"the plugin cannot start: {error}"
        if "grafana_plugin_type" in os.environ:  # the host shows JSON lines only
            text = json.dumps({"@level": "error", "@message": text, "@module": "start"})
        sys.stderr.write(text + "\n")
        sys.exit(1)
