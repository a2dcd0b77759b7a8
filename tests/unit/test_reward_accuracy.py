"""The benchmark's cells and table, without a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy.cells import Cell, choose_pairs, read_result, split_rows, write_result
from benchmarks.accuracy.table import render, summarise
from benchmarks.accuracy.trainers import describe_single

CELL = Cell("data", size=20, seed=0, max_eval=10, who="ours", model="m", trl_epochs=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 pairs, two a prompt."""
    rows = [{"prompt": f"prompt {i // 2}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(60)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_everyone_gets_the_same_pairs_and_no_prompt_is_on_two_sides(folder: Path) -> None:
    rows = split_rows(CELL.config(choose_pairs(folder, CELL)))
    assert len(rows["evaluation"]) == 10
    assert len(rows["train"]) + len(rows["validation"]) == 20
    prompts = [{row["prompt"][0]["content"] for row in own} for own in rows.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts))
    assert rows == split_rows(CELL.config(choose_pairs(folder, replace(CELL, who="trl"))))


def test_a_larger_size_has_the_smaller_one_and_is_measured_on_the_same(folder: Path) -> None:
    sizes = [choose_pairs(folder, replace(CELL, size=size)) for size in (20, 999)]
    small, large = ({pair.chosen: pair.split for pair in pairs} for pairs in sizes)
    assert small.items() <= large.items()
    # 10 of the 60 pairs measure, the others train; a quarter, 15, when more are asked for.
    assert (len(small), len(large)) == (30, 60)
    assert sum(pair.split == "heldout" for pair in choose_pairs(folder, replace(CELL, max_eval=999))) == 15


def test_a_cell_that_is_done_is_found_again_and_another_one_is_not(tmp_path: Path) -> None:
    assert read_result(tmp_path, CELL) is None
    write_result(tmp_path, CELL, {"seconds": 1.0})
    assert read_result(tmp_path, CELL) == {"seconds": 1.0}
    assert read_result(tmp_path, replace(CELL, max_eval=11)) is None


def test_the_table_means_over_seeds() -> None:
    first = describe_single([1.0, 1.0, 1.0, -1.0], [2.0, -1.0, 3.0, 4.0])
    second = describe_single([1.0, 1.0, 1.0, -1.0], [2.0, 1.0, 3.0, 4.0])
    cost = {"train_pairs": 17, "seconds": 2.0, "peak_mib": 100.0}
    rows = summarise([(CELL, first | cost), (replace(CELL, seed=1), second | cost)])
    # Three of four and four of four right; the mistake is the closest vote, a second run has none
    assert [(row["seeds"], row["accuracy"], row["length_baseline"]) for row in rows] == [(2, 0.875, None)]
    assert (first["auroc_uncertainty"], second["auroc_uncertainty"]) == (1.0, None)
    assert rows[0]["auroc_uncertainty"] is None
    # The last quarter is the mistake in the first only: gaps of 1 and 0
    assert rows[0]["quartile_gap"] == 0.5
    assert "87.5" in render(rows)
