"""What judgements say: figures by hand."""

import pytest

from services.console.figures import Agreement, Attention, JudgedPair, compute
from services.console.store.models import Verdict

A, B, TIE, BAD = Verdict.A, Verdict.B, Verdict.TIE, Verdict.BOTH_BAD


def judged(prompt: str, policies: tuple[str, str] = ("x", "y"), gold: Verdict | None = None, **verdicts: Verdict):
    return JudgedPair(prompt, policies, gold, verdicts)


def test_a_win_rate_counts_a_prompt_once_and_two_bad_ones_as_a_tie() -> None:
    # Prompt 1: x wins twice, once from side b: 1. Prompt 2: both bad: ½. Prompt 3: one for each: ½. Mean 2/3.
    pairs = [
        judged("1", ann=A),
        judged("1", ("y", "x"), ann=B),
        judged("2", ann=BAD),
        judged("3", ann=A, bob=B),
    ]
    ((first, second, wins),) = compute(pairs).wins
    assert (first, second, wins["n"]) == ("x", "y", 3)
    assert wins["win_rate"] == pytest.approx(2 / 3)
    low, high = wins["ci95"]
    assert 0.5 <= low < 2 / 3 < high <= 1


def test_attention_and_agreement_keep_to_their_own_pairs() -> None:
    pairs = [
        judged("1", ann=A, bob=A),
        judged("2", ann=B, bob=B),
        judged("3", ann=TIE),
        judged("gold", gold=A, ann=A, bob=B),
        judged("4"),
    ]
    figures = compute(pairs)
    assert figures.agreements == [Agreement(("ann", "bob"), 2, 1.0)]
    assert figures.alpha == 1.0
    assert figures.attention == [Attention("ann", 4, 1, 1), Attention("bob", 3, 1, 0)]
    assert figures.verdicts == {A: 2, B: 2, TIE: 1, BAD: 0}


def test_samples_of_one_policy_have_no_ranking() -> None:
    figures = compute([judged("1", ("x", "x"), ann=A)])
    assert (figures.wins, figures.ranking) == ([], [])
    assert compute([]).attention == []
