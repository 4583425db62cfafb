"""The public names: sorted, documented, and cheap to import."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import aiostream_ds

ALIASES = {"Rows": "decorators.py"}  # a type alias has no docstring; a text follows it
# not ssl: asyncio itself imports it
HEAVY = ("pyarrow", "numpy", "prometheus_client", "psutil", "cryptography")
NAMES = sorted(set(aiostream_ds.__all__) - ALIASES.keys())


def test_the_list_of_public_names_is_sorted_and_complete():
    assert aiostream_ds.__all__ == sorted(set(aiostream_ds.__all__))
    taken = {name for name, value in vars(aiostream_ds).items() if not inspect.ismodule(value)}
    loaded_late = set(aiostream_ds._SELDOM)
    known = {name for name in taken if not name.startswith("_")}
    assert set(aiostream_ds.__all__) == known | loaded_late


def test_names_that_few_use_are_loaded_when_they_are():
    code = "import sys, aiostream_ds as a; n = set(sys.modules); [getattr(a, x) for x in a._SELDOM]"
    code += "; print(*sorted(set(a._SELDOM.values()) & n))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = aiostream_ds.Nothing


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring_of_its_own(name):
    value = getattr(aiostream_ds, name)
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    assert text, f"{name} has no docstring"


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(getattr(aiostream_ds, n), type)])
def test_the_public_methods_of_a_class_are_documented(name):
    for key, member in vars(getattr(aiostream_ds, name)).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{key} has no docstring"


@pytest.mark.parametrize("name", ALIASES)
def test_a_public_alias_is_followed_by_its_text(name):
    path = Path(aiostream_ds.__file__).parent / ALIASES[name]
    body = ast.parse(path.read_text("utf-8")).body
    position = next(
        number
        for number, node in enumerate(body)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    )
    text = body[position + 1]
    assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    assert isinstance(text.value.value, str)


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, aiostream_ds; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []
