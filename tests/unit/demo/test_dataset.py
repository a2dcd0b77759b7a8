"""The shipped data: sizes, splits, shape of a row, and that it belongs to the code that made it."""

from collections import Counter
from dataclasses import asdict

import pytest

from rlhf.demo.dataset import SYSTEM_PROMPT, load_pairs, load_prompts
from rlhf.demo.pairs import MIN_MARGIN, measure_pairs
from rlhf.demo.prompts import make_prompts
from rlhf.demo.rubric import score


def test_shipped_prompts_are_those_the_code_makes():
    assert load_prompts() == [asdict(prompt) for prompt in make_prompts()]


def test_prompts_are_distinct_and_of_seven_balanced_types():
    rows = load_prompts()
    assert len({row["prompt"].casefold() for row in rows}) == len({row["id"] for row in rows}) == len(rows) >= 720
    counts = Counter(row["type"] for row in rows)
    assert len(counts) == 7
    assert max(counts.values()) <= 1.1 * min(counts.values())


def test_splits_are_stratified_and_disjoint():
    train, heldout = load_prompts("train"), load_prompts("heldout")
    assert len(train) >= 560
    assert len(heldout) >= 160
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}
    per_type = Counter(row["type"] for row in heldout)
    assert set(per_type) == {row["type"] for row in train}
    assert min(per_type.values()) >= 20


@pytest.mark.parametrize(("split", "least"), [("train", 1250), ("heldout", 300)])
def test_pairs_are_many_and_length_does_not_decide(split, least):
    figures = measure_pairs(load_pairs(split))
    assert figures["pairs"] >= least
    assert max(figures["shorter_wins"], figures["longer_wins"]) < 0.70
    assert figures["both_end"] > 0.25


def test_pairs_carry_the_task_and_the_scores_of_the_rubric():
    prompts = {row["id"]: row for row in load_prompts()}
    for row in load_pairs():
        prompt = prompts[row["prompt_id"]]
        assert row["prompt"] == [
            {"role": "system", "content": SYSTEM_PROMPT},
            {"role": "user", "content": prompt["prompt"]},
        ]
        assert (row["split"], row["type"]) == (prompt["split"], prompt["type"])
        for side in ("chosen", "rejected"):
            (message,) = row[side]
            assert message["role"] == "assistant"
            assert message["content"] == message["content"].strip() != ""
            assert score(prompt["prompt"], message["content"]).total == pytest.approx(row[f"score_{side}"], abs=1e-4)
        assert row["margin"] >= MIN_MARGIN - 1e-4
        assert row["margin"] == pytest.approx(row["score_chosen"] - row["score_rejected"], abs=2e-4)


def test_no_pair_is_shipped_twice():
    keys = Counter((r["prompt_id"], r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in load_pairs())
    assert max(keys.values()) == 1
