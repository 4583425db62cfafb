"""The smoke test of a finished package: its own Python imports it, and a frame is encoded and
decoded with Arrow.
"""

from pathlib import Path

from aiostream_ds.packaging.python_runtime import Runtime, run_python

__all__ = ["smoke_test"]

_ARROW = """
import sys
sys.path += [sys.argv[1] + "/app", sys.argv[1] + "/py"]
from aiostream_ds import Field, Frame
from aiostream_ds._frames import arrow
frame = Frame(Field("n", [1, 2]), Field("s", ["a", None]), Field("x", [0.5, None]))
again = arrow.decode(arrow.encode(frame))
assert [list(field.values) for field in again.fields] == [[1, 2], ["a", None], [0.5, None]], again
texts = Frame(Field("s", ["a"] * 100_000))
assert len(arrow.decode(arrow.encode(texts)).fields[0].values) == 100_000
import pyarrow as pa
table = pa.table({"n": [1, None], "s": ["a", None], "x": [[0.5], None], "d": [{"t": b"b"}, None]})
for compression in None, "lz4", "zstd":  # a stream as it is pushed
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    assert pa.ipc.open_stream(sink.getvalue()).read_all().equals(table)
for kind in "int8 uint64 halffloat float bool large_string date32 time64[ns] duration[s]".split():
    nulls = pa.nulls(2, pa.type_for_alias(kind))
    nulls.validate(full=True)
    assert pa.concat_arrays([nulls, nulls]).to_pylist() == [None] * 4
for call in (lambda: pa.ipc.open_file(b"no file"), lambda: pa.array([2**80], "int64")):
    try:
        call()
    except (pa.ArrowInvalid, OverflowError):
        continue
    raise AssertionError("an error of pyarrow was not raised")
"""

_IMPORTS = """
import asyncio, re, ssl, zoneinfo
import aiostream_ds.cli.doctor, aiostream_ds._process.runtime
text = open(sys.argv[1] + "/start.py", encoding="utf-8").read()
found = re.search(r'load\\("(.+)"\\)', text)
if found:
    from aiostream_ds._grafana.catalog import load
    load(found[1])
"""


def smoke_test(root: Path, runtime: Runtime, *, only_arrow: bool = False) -> None:
    """Run the smoke test with every symbol resolved at once (LD_BIND_NOW).

    Raises:
        PackagingError: It failed; the message has the end of its output.
    """
    run_python(root, runtime, _ARROW + ("" if only_arrow else _IMPORTS))
