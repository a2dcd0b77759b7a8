"""The work and the figures of `make bench-ppo`, without a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.ppo import compare
from benchmarks.ppo_steps.ours import OtherWork, read_steps
from benchmarks.ppo_steps.side import Round, Step, summarise
from benchmarks.ppo_steps.table import render
from benchmarks.ppo_steps.work import Work, make_endless


def make_work(model: Path = Path("m")) -> Work:
    return Work(
        model,
        Path("c"),
        3,
        prompts=2,
        new_tokens=4,
        epochs=4,
        minibatches=1,
        samples_per_pass=2,
        lora_r=8,
        top_layers=2,
    )


def row(step: int, time: float, tokens: int = 8) -> dict[str, float]:
    return {"step": step, "time": time, "tokens": tokens, "generate_s": 1.0, "score_s": 0.5, "learn_s": 2.0}


def test_a_step_lasts_from_the_end_of_the_one_before_and_the_first_is_left_out() -> None:
    steps = read_steps([row(1, 100.0), row(2, 104.0), row(3, 109.0)], make_work())
    assert [step.total for step in steps] == [4.0, 5.0]
    assert steps[0].other == 0.5  # 4 - 1 - 0.5 - 2


def test_other_work_is_not_compared() -> None:
    with pytest.raises(OtherWork, match="step 2 has 7 response tokens, not 2 × 4"):
        read_steps([row(1, 0.0), row(2, 1.0, tokens=7)], make_work())


def test_figures_are_medians_over_rounds_and_the_highest_peak() -> None:
    rounds = [
        Round([Step(4.0, 1.0, 0.5, 2.0), Step(5.0, 2.0, 0.5, 2.0)], 100.0),
        Round([Step(3.0, 1.0, 0.5, 1.5)], 120.0),
    ]
    figures = summarise(rounds, samples=2)
    assert (figures["step_s"], figures["samples_per_s"]) == ({"min": 3.0, "median": 4.0}, 0.5)
    assert (figures["peak_mib"], figures["split_s"]["rollout"]) == (120.0, 1.0)


def test_the_line_says_null_where_trl_is_missing() -> None:
    ours = summarise([Round([Step(4.0, 1.0, 0.5, 2.0)], 100.0)], samples=2)
    alone = compare({"ours": ours}, None)
    assert (alone["speedup_vs_trl"], alone["peak_memory_ratio"]) == (None, None)
    trl = summarise([Round([Step(12.0, 4.0, 1.0, 7.0)], 400.0)], samples=2)
    both = compare({"ours": ours, "trl": trl}, None)
    assert (both["speedup_vs_trl"], both["peak_memory_ratio"]) == (pytest.approx(3.0), 0.25)
    assert "3.00 × TRL's" in render(both)


def test_an_endless_model_has_an_end_that_it_never_samples(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    special = [{"id": i, "content": name, "special": True} for i, name in enumerate(("<s>", "</s>", "<a>", "<b>"))]
    (source / "tokenizer.json").write_text(json.dumps({"added_tokens": special}))
    (source / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (source / "config.json").write_text(json.dumps({"eos_token_id": 1, "num_hidden_layers": 4}))
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    (source / "model.safetensors").write_bytes(b"weights")
    model = make_endless(source, tmp_path / "endless")
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == 2
    assert json.loads((model / "generation_config.json").read_text()) == {"eos_token_id": 2, "pad_token_id": 3}
    assert json.loads((model / "tokenizer_config.json").read_text())["eos_token"] == "<a>"
    assert (model / "model.safetensors").is_symlink()
    # The source stays as it was.
    assert json.loads((source / "config.json").read_text())["eos_token_id"] == 1
    assert make_work(model).settings()["layers"] == [2, 3]


def test_both_sides_get_the_same_prompts() -> None:
    work = make_work()
    prompts = [[message.model_dump() for message in prompt] for prompt in work.job().prompts]  # type: ignore[union-attr]
    assert prompts == work.conversations
    assert len(prompts) == 3 * 2
