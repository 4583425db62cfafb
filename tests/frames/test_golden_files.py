"""Files written by Grafana's SDK are decoded, and encoded again with the same meaning.

The Go program in tests/conformance/goldens writes the files in tests/conformance/golden.
tests/conformance/test_goldens_go.py checks that the SDK reads the files of this package.
"""

import json as stdlib_json
from pathlib import Path
from typing import Any

import pytest

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import FieldType, Frame

from ..strategies import same

pytestmark = pytest.mark.slow  # every golden file, in every encoding

GOLDEN = Path(__file__).parent.parent / "conformance" / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def read_json(name: str) -> Frame:
    return json.decode((GOLDEN / f"{name}.json").read_bytes())


def read_arrow(name: str) -> Frame:
    return arrow.decode((GOLDEN / f"{name}.arrow").read_bytes())


def normalised(text: bytes) -> Any:
    """The parsed payload, without three things that Go writes and that have no meaning.

    A `typeVersion` of [0, 0] means "none": Go cannot omit it. A `min` or `max` of null means NaN,
    which the browser and the SDK ignore. Empty labels equal missing labels.
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
def test_json_of_the_sdk_is_encoded_to_the_same_json(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes()
    assert normalised(json.encode(json.decode(golden))) == normalised(golden)


@pytest.mark.parametrize("name", NAMES)
def test_arrow_of_the_sdk_survives_a_round_trip(name: str) -> None:
    golden = read_arrow(name)
    assert same(arrow.decode(arrow.encode(golden)), golden)


@pytest.mark.parametrize("name", NAMES)
def test_arrow_metadata_equals_that_of_the_sdk(name: str) -> None:
    """Byte for byte, except in JSON, where only the meaning counts."""
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
def test_arrow_and_json_of_the_sdk_are_the_same_frame(name: str) -> None:
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
