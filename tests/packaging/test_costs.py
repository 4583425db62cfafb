"""What the parts of a package cost."""

from pathlib import Path

from aiostream_ds.packaging.costs import describe_costs, describe_large, parts

SIZES = {
    "py/pyarrow/libarrow.so.2600": 14_000_000,
    "py/pyarrow/lib.so": 2_000_000,
    "py/six.py": 1000,
    "py/six-1.0.dist-info/METADATA": 2000,
    "rt/lib/libc.so.6": 800_000,
    "rt/lib/python3.11/asyncio/base_events.pyc": 3_000_000,
    "rt/bin/python3.11": 1_000_000,
    "gpx_a_linux_amd64": 900_000,
    "start.bin": 2_000_000,
    "app/plant.py": 400,
    "module.js": 40_000,
}


def test_every_file_belongs_to_one_part() -> None:
    assert dict(parts(SIZES)) == {
        "pyarrow": 16_000_000,
        "standard library": 3_000_000,
        "modules of the start": 2_000_000,
        "Python, libc and system libraries": 1_800_000,
        "launcher": 900_000,
        "frontend, texts, dashboards, licences": 40_000,
        "packages' metadata": 2000,
        "six": 1000,
        "your files": 400,
    }


def test_small_parts_are_summed_up_and_the_sum_is_the_size() -> None:
    assert describe_costs(SIZES) == (
        "pyarrow 16.0 MB, standard library 3.0 MB, modules of the start 2.0 MB, "
        "Python, libc and system libraries 1.8 MB, launcher 0.9 MB, others 43.4 kB"
    )


def test_a_large_package_is_listed_with_what_needs_it(tmp_path: Path) -> None:
    metadata = tmp_path / "py/frames-1.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(
        "Name: frames\nRequires-Dist: Big-Numbers>=2\nRequires-Dist: unused; extra == 'all'\n"
    )
    sizes = {
        "py/big_numbers/core.so": 30_000_000,
        "py/unused/core.so": 20_000_000,
        "py/small/core.so": 9_000_000,
        "py/pyarrow/libarrow.so": 45_000_000,
    }
    assert [text for text, _ in describe_large(tmp_path, sizes)] == [
        "big_numbers takes 30.0 MB, needed by frames",
        "unused takes 20.0 MB, needed by your files or --with",
    ]
    (tmp_path / "py/pyarrow").mkdir()
    (tmp_path / "py/pyarrow/_compute.so").write_bytes(b"")
    text, cure = next(describe_large(tmp_path, sizes))
    assert text == "pyarrow takes 45.0 MB, with its parts for computing and files"
    assert "pandas" in cure
