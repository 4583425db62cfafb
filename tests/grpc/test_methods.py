"""The method table: the first call to a service creates its methods."""

import pytest

from aiostream_ds._grpc.methods import MethodTable, unary


def create_table(failures=0):
    created = []

    def create():
        created.append("a.One")
        if len(created) <= failures:
            raise ImportError("not now")
        return {"/a.One/Do": METHOD}

    def other():
        created.append("a.Two")
        return {}

    return MethodTable({"a.One": create, "a.Two": other}), created


async def do(request, call):
    return b""


METHOD = unary(do, bytes, bytes)


def test_the_first_call_creates_the_methods_of_its_service_once():
    table, created = create_table()
    assert created == []
    assert table.find("/a.One/Do") is METHOD
    assert table.find("/a.One/Do") is METHOD
    assert created == ["a.One"]


@pytest.mark.parametrize(
    "path", ["", "/", "a.One/Do", "/a.One", "/a.One/do", "/b/Do", "/a.One/x/Do"]
)
def test_an_unknown_path_has_no_method(path):
    table, created = create_table()
    assert table.find(path) is None
    assert table.find(path) is None
    assert created in ([], ["a.One"])


def test_a_failed_creation_is_retried_by_the_next_call():
    table, created = create_table(failures=1)
    with pytest.raises(ImportError):
        table.find("/a.One/Do")
    assert table.find("/a.One/Do") is METHOD
    assert created == ["a.One", "a.One"]
