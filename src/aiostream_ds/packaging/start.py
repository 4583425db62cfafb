"""The two files by which a package starts: start.py, which Python runs, and launch.conf, which the
launcher reads. Standard library only.
"""

from collections.abc import Mapping

__all__ = ["launch_conf", "start_file"]

_HEAD = '''\
"""Starts the plugin. Made by `aiostream-ds package`; not to be edited."""

import gc

gc.disable()  # what is imported stays, so a search for garbage finds none; serve() enables it

import sys

HERE = __file__.rpartition("/")[0] or "."
'''

_BUNDLED = """\
# the library first: most imports are its own. No archive of it is there.
sys.path[:] = [path for path in sys.path if not path.endswith(".zip")]
sys.path += [HERE + "/app", HERE + "/py"]

from _frozen_importlib_external import (
    SourceFileLoader,
    SourcelessFileLoader,
    spec_from_file_location,
)
from _imp import _fix_co_filename
from marshal import loads


def code(loader, name):
    found = loads(table.pop(name)[2])
    _fix_co_filename(found, loader.path)
    return found


class Source(SourceFileLoader):
    def get_code(self, name):
        return code(self, name) if name in table else super().get_code(name)


class Bare(SourcelessFileLoader):
    def get_code(self, name):
        return code(self, name) if name in table else super().get_code(name)


class Preloaded:
    # the modules of a start, out of start.bin, each once; all others are looked for as ever

    @staticmethod
    def find_spec(name, path=None, target=None):
        found = table.get(name)
        if found is None:
            return None
        place = HERE + "/" + found[1]
        loader = (Source if place.endswith(".py") else Bare)(name, place)
        inner = [place.rpartition("/")[0]] if found[0] else None
        return spec_from_file_location(name, place, loader=loader, submodule_search_locations=inner)


table = {}
try:
    with open(HERE + "/start.bin", "rb") as file:
        table = loads(file.read())
except OSError:
    pass
sys.meta_path.insert(-1, Preloaded)  # before the search of sys.path
"""

_HOST = """\
sys.path[:0] = [HERE + "/app", HERE + "/py"]


def lacks(what, cure):
    import json

    text = "the Python %s (%s) %s: %s" % (sys.executable, sys.version.split()[0], what, cure)
    sys.stderr.write(json.dumps({"@level": "error", "@message": text, "@module": "start"}) + "\\n")
    sys.exit(1)


if sys.version_info < (3, 11):
    lacks("is older than 3.11", "set python = /path/to/python under [plugin.<id>] in grafana.ini")
try:
    import aiostream_ds._process.runtime
except ModuleNotFoundError as error:
    lacks(
        "lacks the package %r" % error.name,
        "%s -m pip install -r %s/requirements.txt" % (sys.executable, HERE),
    )
"""

_COMMAND = """
if len(sys.argv) > 1:  # `gpx_… doctor`: the command line, where the machine has no Python
    from aiostream_ds.cli import main

    gc.enable()
    sys.exit(main(sys.argv[1:]))
"""

_CLASS = """
from aiostream_ds._process.runtime import serve_loaded
from aiostream_ds._grafana.catalog import Catalog, load

serve_loaded(lambda: Catalog(load("{module}:{name}")))
"""

_BUILTIN = """
from aiostream_ds.sources.builtin_plugin import main

main()
"""


def start_file(runtime: str, target: tuple[str, str] | None) -> str:
    """The text of start.py; `target` is a module and a class, None the built-in plugin."""
    paths = _BUNDLED if runtime == "bundled" else _HOST
    end = _BUILTIN if target is None else _CLASS.format(module=target[0], name=target[1])
    return _HEAD + paths + _COMMAND + end


def launch_conf(values: Mapping[str, str]) -> str:
    """The text of launch.conf; empty values are left out."""
    lines = [f"{name} = {value}\n" for name, value in values.items() if value]
    return "# How the launcher starts the plugin. Made by `aiostream-ds package`.\n" + "".join(
        lines
    )
