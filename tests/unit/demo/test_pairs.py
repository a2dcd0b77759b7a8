"""Choosing pairs: margins, limits of use, the balance of kinds and lengths, and the same choice for the same seed."""

from collections import Counter

import pytest

from rlhf.demo.pairs import PAIRS_PER_PROMPT, USES_PER_RESPONSE, ScoredResponse, choose_pairs, measure_pairs
from rlhf.demo.prompts import Prompt


def make_prompt(number):
    return Prompt(f"question-{number:03d}", "question", f"Why {number}?", "train")


def make_responses(number):
    """Two that end and two that do not; among those that end the longer one is better in every second prompt."""
    longer_is_better = number % 2 == 0
    return [
        ScoredResponse("It ends here.", 0.7 if longer_is_better else 0.9),
        ScoredResponse("It ends here after a few more words.", 0.9 if longer_is_better else 0.7),
        ScoredResponse("It is cut off right in the middle of the", 0.3),
        ScoredResponse("It is cut", 0.2),
    ]


def test_a_pair_needs_the_margin_and_two_different_texts():
    prompt = make_prompt(1)
    near = [ScoredResponse("One.", 0.5), ScoredResponse("Two.", 0.57), ScoredResponse("", 0.0)]
    assert choose_pairs([prompt], {prompt.id: near}, seed=0) == []
    apart = [ScoredResponse("One.", 0.5), ScoredResponse("Two.", 0.6), ScoredResponse("Two.", 0.6)]
    (row,) = choose_pairs([prompt], {prompt.id: apart}, seed=0)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Two.", "One.")
    assert row["margin"] == pytest.approx(0.1)


def test_limits_per_prompt_and_per_response_hold():
    prompts = [make_prompt(number) for number in range(30)]
    pairs = choose_pairs(prompts, {p.id: make_responses(i) for i, p in enumerate(prompts)}, seed=0)
    assert max(Counter(row["prompt_id"] for row in pairs).values()) <= PAIRS_PER_PROMPT
    uses = Counter((row["prompt_id"], row[side][0]["content"]) for row in pairs for side in ("chosen", "rejected"))
    assert max(uses.values()) <= USES_PER_RESPONSE


def test_neither_kind_nor_length_takes_over():
    prompts = [make_prompt(number) for number in range(60)]
    figures = measure_pairs(choose_pairs(prompts, {p.id: make_responses(i) for i, p in enumerate(prompts)}, seed=0))
    assert 0.35 < figures["shorter_wins"] < 0.65
    assert figures["both_end"] > 0.2
    assert figures["both_cut"] < 0.2


def test_same_seed_same_pairs_and_another_seed_others():
    prompts = [make_prompt(number) for number in range(30)]
    responses = {p.id: make_responses(i) for i, p in enumerate(prompts)}
    assert choose_pairs(prompts, responses, seed=3) == choose_pairs(prompts, responses, seed=3)
    assert choose_pairs(prompts, responses, seed=3) != choose_pairs(prompts, responses, seed=4)


def test_measure_counts_by_hand():
    prompt = make_prompt(0)
    pairs = choose_pairs([prompt], {prompt.id: [ScoredResponse("Ends.", 0.9), ScoredResponse("Is cut", 0.2)]}, seed=0)
    # One pair: the chosen one has 5 characters, the rejected one 6; one of the two ends.
    assert measure_pairs(pairs) == {
        "pairs": 1, "shorter_wins": 1.0, "longer_wins": 0.0, "margin_mean": pytest.approx(0.7),
        "both_end": 0.0, "one_ends": 1.0, "both_cut": 0.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match="no pairs"):
        measure_pairs([])
