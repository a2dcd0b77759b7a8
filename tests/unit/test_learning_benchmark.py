"""The cells, curves and plot of `make bench-learning`, without a training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overoptimisation.curves import (
    by_prompt,
    compare_ends,
    kl_at,
    make_point,
    mean_interval,
    summarise_run,
    summarise_variants,
)
from benchmarks.overoptimisation.design import PRESET, Cell, job_key, make_cells
from benchmarks.overoptimisation.plot import draw_curves
from benchmarks.overoptimisation.results import read_result, write_result


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return make_cells(PRESET, [0, 1], ["single", "mean", "penalised"], steps=25)


def make_result(seed: int, variant: str, gold: list[list[float]]) -> dict[str, Any]:
    figures = {"uncertainty_mean": 0.1, "eos_rate": 0.5, "rep4": 0.0}
    points = [make_point(10 * i, float(i), row, [-value for value in row], figures) for i, row in enumerate(gold)]
    return {"seed": seed, "variant": variant, "stopped": None, "points": points, "reward_model_accuracy": 0.9}


def test_a_seed_is_compared_whole_before_the_next_begins(cells: list[Cell]) -> None:
    seed0 = ["seed0-single", "seed0-mean", "seed0-penalised"]
    assert [cell.name for cell in cells] == seed0 + [name.replace("0", "1") for name in seed0]
    # Every ten steps, and the last.
    assert cells[0].checkpoints == [0, 10, 20, 25]


def test_both_ensembles_of_a_seed_share_a_bundle_and_nothing_else_is_shared(cells: list[Cell]) -> None:
    single, mean, penalised, *_ = cells
    assert job_key(mean.reward_model) == job_key(penalised.reward_model) != job_key(single.reward_model)
    assert (single.reward_model.members, mean.reward_model.members) == (1, 5)
    assert len({job_key(cell.ppo(f"rm-{cell.variant.members}@1")) for cell in cells}) == 6
    assert len({cell.digest("m") for cell in cells}) == 6
    assert penalised.ppo("rm@1").aggregation.method == "lcb"


def test_a_result_is_found_again_by_the_same_config_only(tmp_path: Path) -> None:
    assert read_result(tmp_path, "seed0-single", "digest") is None
    write_result(tmp_path, "seed0-single", "digest", {"points": [], "lost": float("nan")})
    assert read_result(tmp_path, "seed0-single", "digest") == {"points": [], "lost": None}
    assert read_result(tmp_path, "seed0-single", "other") is None


def test_kl_of_a_checkpoint_is_the_mean_around_it() -> None:
    rows = [{"kl_sequence": float(i)} for i in range(10)]
    assert kl_at(rows, 0) == 0
    assert kl_at(rows, 5) == 5  # (3 + 4 + 5 + 6 + 7) / 5
    assert kl_at(rows, 1) == 1.5  # (0 + 1 + 2 + 3) / 4
    assert kl_at(rows, 10) == 8.5  # of the last policy nothing is known: (8 + 9) / 2


def test_interval_over_prompts() -> None:
    # Two samples a prompt: means 1 and 3, their deviation √2, the mean's 1; 2 ± 1.96.
    assert mean_interval(by_prompt([0.0, 2.0, 3.0, 3.0], 2)) == pytest.approx((2.0, 0.04, 3.96))


def test_gain_is_paired_by_prompt_and_the_best_is_not_the_end() -> None:
    run = summarise_run(make_result(0, "single", [[0.0, 0.4], [0.6, 0.8], [0.3, 0.7]]))
    # 0.3 for either prompt: the interval of the gain is a point, whatever the prompts differ.
    assert run["gold_gain"] == pytest.approx(0.3)
    assert run["gold_gain_ci95"] == pytest.approx([0.3, 0.3])
    assert (run["gold_best"], run["best_step"], run["steps"], run["kl_end"]) == (pytest.approx(0.7), 10, 20, 2.0)
    assert (run["proxy_start"], run["proxy_at_best"], run["proxy_end"]) == pytest.approx((-0.2, -0.7, -0.5))


def test_variants_are_compared_over_the_seeds_that_both_have() -> None:
    runs = [
        summarise_run(make_result(seed, variant, [[0.1, 0.1], [end, end]]))
        for seed, variant, end in [(0, "single", 0.5), (0, "penalised", 0.7), (1, "single", 0.6), (2, "penalised", 0.9)]
    ]
    against = compare_ends(runs, "penalised", "single")
    assert against is not None
    assert (against["seeds"], against["mean"]) == ([0], pytest.approx(0.2))
    assert compare_ends(runs, "mean", "single") is None
    assert summarise_variants(runs)["single"]["gold_end"] == pytest.approx(0.55)


def test_the_plot_has_a_line_a_run_in_both_panels() -> None:
    gold = [[0.1, 0.2], [0.4, 0.6], [0.3, 0.4]]
    svg = draw_curves([make_result(seed, variant, gold) for seed in (0, 1) for variant in ("single", "penalised")])
    assert len(re.findall("<polyline", svg)) == 8
    assert len(re.findall('class="interval"', svg)) == 24
    assert "seed 1" in svg
    assert "mean - 1.0·std" in svg
