"""The table of methods: a service is made when it is first called, and once."""

import pytest

from aiostream_ds._grpc.methods import Table, unary


def make_table(failures=0):
    made = []

    def make():
        made.append("a.One")
        if len(made) <= failures:
            raise ImportError("not now")
        return {"/a.One/Do": METHOD}

    def other():
        made.append("a.Two")
        return {}

    return Table({"a.One": make, "a.Two": other}), made


async def do(request, call):
    return b""


METHOD = unary(do, bytes, bytes)


def test_a_service_is_made_once_when_one_of_its_methods_is_first_called():
    table, made = make_table()
    assert made == []
    assert table.find("/a.One/Do") is METHOD
    assert table.find("/a.One/Do") is METHOD
    assert made == ["a.One"]


@pytest.mark.parametrize(
    "path", ["", "/", "a.One/Do", "/a.One", "/a.One/do", "/b/Do", "/a.One/x/Do"]
)
def test_a_path_of_no_method_finds_none(path):
    table, made = make_table()
    assert table.find(path) is None
    assert table.find(path) is None
    assert made in ([], ["a.One"])


def test_a_service_that_could_not_be_made_is_tried_again():
    table, made = make_table(failures=1)
    with pytest.raises(ImportError):
        table.find("/a.One/Do")
    assert table.find("/a.One/Do") is METHOD
    assert made == ["a.One", "a.One"]
