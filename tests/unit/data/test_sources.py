"""Files of preference data: read whole, and refused with the line and what it holds."""

import gzip
import json
import sys
import types
from pathlib import Path

import pyarrow.parquet
import pytest

from rlhf.data.sources import DataError, read_rows

ROWS = [{"prompt": "ä", "chosen": "b"}, {"prompt": "c", "chosen": "d"}]
LINES = "\n".join(json.dumps(row) for row in ROWS) + "\n\n"


def test_lines_compressed_lines_and_arrays_are_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINES, encoding="utf-8")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    for name in ("a.jsonl", "a.jsonl.gz", "a.json"):
        assert list(read_rows(str(tmp_path / name))) == ROWS
    assert list(read_rows(str(tmp_path / "a.json"), limit=1)) == ROWS[:1]


def test_parquet_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(read_rows(str(tmp_path / "a.parquet"))) == ROWS


def test_a_data_set_of_the_hub_is_read_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library stands in for a network that is not there; what is asked of it is its published interface."""
    asked = []

    def load_dataset(name: str, *, split: str) -> list[dict]:
        asked.append((name, split))
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(read_rows("owner/name", split="test")) == ROWS
    assert asked == [("owner/name", "test")]


def test_what_the_hub_says_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, *, split: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match="owner/name, split train: ConnectionError: no network"):
        list(read_rows("owner/name"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"prompt": 1}\nnonsense\n', r"line 2 is no JSON .*'nonsense'"),
        ("a.jsonl", "[1]\n", r"line 1 holds list '\[1\]'; every row must be an object"),
        ("a.json", '{"a": 1}', "holds dict; send an array of objects"),
        ("a.json", '{"a": 1}\n{"a": 2}', "should end in .jsonl"),
        ("a.csv", "prompt,chosen", "ends in .csv; send .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_place(tmp_path: Path, name, content, told) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        list(read_rows(str(tmp_path / name)))


def test_a_name_that_is_neither_is_refused(tmp_path: Path) -> None:
    for source in ("nowhere", str(tmp_path / "missing.jsonl"), "folder/missing.jsonl"):
        with pytest.raises(DataError, match="is no file, and no id of a data set on the Hub"):
            list(read_rows(source))
