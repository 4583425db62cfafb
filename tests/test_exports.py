"""The public names: complete, documented, and cheap to import."""

import ast
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import aiostream_ds
from aiostream_ds import DataSource

# a type alias has no docstring; a string follows it
ALIASES = {"Rows": "decorators/stream_decorator.py"}
# not ssl: asyncio itself imports it
HEAVY = ("pyarrow", "numpy", "prometheus_client", "psutil", "cryptography")
NAMES = sorted(set(aiostream_ds.__all__) - ALIASES.keys())
CLASSES = [name for name in NAMES if isinstance(getattr(aiostream_ds, name), type)]


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_all_lists_each_public_name_once():
    public = {
        name
        for name, value in vars(aiostream_ds).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(aiostream_ds.__all__) == public | set(aiostream_ds._LAZY)
    assert len(aiostream_ds.__all__) == len(set(aiostream_ds.__all__))


def mentioned(annotation: typing.Any) -> Iterator[type]:
    """The classes of this package in an annotation, also inside of unions and generics."""
    if isinstance(annotation, type) and annotation.__module__.startswith("aiostream_ds"):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from mentioned(argument)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_that_a_public_struct_needs_is_public(name):
    kind = getattr(aiostream_ds, name)
    if not issubclass(kind, msgspec.Struct):
        return
    for field in msgspec.structs.fields(kind):
        for needed in mentioned(field.type):
            assert needed.__name__ in aiostream_ds.__all__, f"{name}.{field.name}"


def test_classes_are_found_inside_of_unions_and_generics():
    hints = typing.get_type_hints(aiostream_ds.FieldConfig)
    found = {kind.__name__ for kind in mentioned(hints["mappings"])}
    assert found == {"ValueMapping", "RangeMapping", "SpecialMapping"}
    assert {kind.__name__ for kind in mentioned(hints["thresholds"])} == {"Thresholds"}


@pytest.mark.slow
def test_lazy_names_are_imported_on_first_use():
    code = "import sys, aiostream_ds as a; n = set(sys.modules); [getattr(a, x) for x in a._LAZY]"
    assert run_python(code + "; print(*sorted(set(a._LAZY.values()) & n))") == []
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = aiostream_ds.Nothing


def test_the_public_attributes_of_a_data_source_are_the_documented_ones():
    assert {name for name in vars(DataSource) if not name.startswith("_")} == {
        "allow",
        "declared_errors",
        "follow",
        "grafana_config",
        "health",
        "lifespan",
        "quota",
        "row_store",
        "state",
        "store_directory",
        "stream_threads",
        "tasks",
        "threads",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_its_own_docstring(name):
    value = getattr(aiostream_ds, name)
    text = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    assert text, f"{name} has no docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_the_public_methods_of_a_class_are_documented(name):
    for key, member in vars(getattr(aiostream_ds, name)).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{key} has no docstring"


@pytest.mark.parametrize("name", ALIASES)
def test_a_string_that_describes_it_follows_a_public_alias(name):
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


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, aiostream_ds; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    assert run_python(code) == []
