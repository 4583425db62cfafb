"""What Grafana's own SDK wrote is read, and written again with the same meaning.

The files in tests/conformance/golden come from the Go program beside them; nothing in Python
writes them. That the SDK also reads what is written here: tests/conformance/test_goldens_go.py.
"""

import json as stdlib_json
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import FieldType, Frame

from ..strategies import same

GOLDEN = Path(__file__).parent.parent / "conformance" / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def read_json(name: str) -> Frame:
    return json.decode((GOLDEN / f"{name}.json").read_bytes())


def read_arrow(name: str) -> Frame:
    return arrow.decode((GOLDEN / f"{name}.arrow").read_bytes())


def normalised(text: bytes) -> Any:
    """The parsed payload, without the three things that Go writes and that say nothing.

    A `typeVersion` of [0, 0] stands for "none": Go has no other way to leave it out. A `min` or
    `max` of null stands for NaN, and both readers take it as left out. Empty labels are no labels.
    """
    payload = stdlib_json.loads(text)
    schema = payload["schema"]
    if schema.get("meta", {}).get("typeVersion") == [0, 0]:
        del schema["meta"]["typeVersion"]
    for field in schema["fields"]:
        config = field.get("config", {})
        for key in ("min", "max"):
            if key in config and config[key] is None:
                del config[key]
        if field.get("labels") == {}:
            del field["labels"]
    return payload


def test_each_type_is_among_the_goldens_with_and_without_null() -> None:
    assert len(NAMES) >= 12
    found = {(f.type, f.nullable) for name in NAMES for f in read_arrow(name).fields}
    assert found == {(each, nullable) for each in FieldType for nullable in (False, True)}


@pytest.mark.parametrize("name", NAMES)
def test_json_of_the_sdk_is_written_again_the_same(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert normalised(json.encode(json.decode(golden))) == normalised(golden)


@pytest.mark.parametrize("name", NAMES)
def test_arrow_of_the_sdk_comes_through_unchanged(name: str) -> None:
    golden = read_arrow(name)
    assert same(arrow.decode(arrow.encode(golden)), golden)


@pytest.mark.parametrize("name", NAMES)
def test_arrow_metadata_is_that_of_the_sdk(name: str) -> None:
    """Byte for byte, except in JSON texts, where only the meaning counts."""
    import pyarrow as pa

    def metadata(content: bytes) -> list[dict[str, Any]]:
        schema = pa.ipc.open_file(content).schema
        rows = []
        for part in (schema, *schema):
            row = {k.decode(): v.decode() for k, v in (part.metadata or {}).items()}
            for key in {"meta", "config", "labels"} & row.keys():
                row[key] = stdlib_json.loads(row[key])
                if key == "meta" and row[key].get("typeVersion") == [0, 0]:
                    del row[key]["typeVersion"]
                if key == "config":
                    row[key] = {k: v for k, v in row[key].items() if v is not None}
            rows.append(row)
        rows += [{"type": str(f.type), "nullable": f.nullable, "name": f.name} for f in schema]
        return rows

    golden = (GOLDEN / f"{name}.arrow").read_bytes()
    assert metadata(arrow.encode(arrow.decode(golden))) == metadata(golden)


@pytest.mark.parametrize("name", NAMES)
def test_arrow_and_json_of_the_sdk_are_one_frame(name: str) -> None:
    assert same(read_arrow(name), read_json(name))


def test_the_config_golden_has_every_key() -> None:
    config = read_arrow("config").fields[1].config
    assert config is not None
    missing = {key for key in config.__struct_fields__ if not getattr(config, key)}
    assert missing == set()


def test_the_meta_golden_has_every_key() -> None:
    meta = read_json("meta").meta
    assert meta is not None
    assert {key for key in meta.__struct_fields__ if not getattr(meta, key)} == set()
