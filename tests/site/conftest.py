"""The modules that build the site, and the built site."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.requirements import require

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "site" / "html"


def load(name: str) -> ModuleType:
    """A module of docs/site."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def messages() -> ModuleType:
    return load("error_messages")


@pytest.fixture
def site() -> Path:
    """The folder that `scripts/site` has written."""
    require("site", (BUILT / "index.html").is_file(), "the site is not built: scripts/site")
    return BUILT
