"""What the judgements of a study say: agreement, win rates, a ranking, attention. Pure functions.

Questions that check attention count for attention alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlhf.contracts.base import prompt_key
from rlhf.evaluation.agreement import cohen_kappa, krippendorff_alpha
from rlhf.evaluation.bootstrap import mean_interval
from rlhf.evaluation.bradley_terry import Comparison, Ranked, rank
from rlhf.evaluation.win_rate import WinRate
from services.console.store.models import Judgement, Pair, Verdict

POINTS = {Verdict.A: 1.0, Verdict.B: 0.0, Verdict.TIE: 0.5, Verdict.BOTH_BAD: 0.5}
"""What a verdict is worth to a; two bad responses are as good as each other."""


@dataclass(frozen=True)
class JudgedPair:
    """A pair and what was said of it.

    Attributes:
        prompt: what makes two prompts the same.
        policies: of a and b.
        gold: the right verdict where it checks attention.
        verdicts: by the name of the person.
    """

    prompt: str
    policies: tuple[str, str]
    gold: Verdict | None
    verdicts: Mapping[str, Verdict]

    @property
    def points(self) -> float:
        """Of a, the mean over people."""
        return float(np.mean([POINTS[verdict] for verdict in self.verdicts.values()]))


@dataclass(frozen=True)
class Agreement:
    """Of two people. Attributes: pairs, that both judged; kappa, Cohen's; None where it is undefined."""

    people: tuple[str, str]
    pairs: int
    kappa: float | None


@dataclass(frozen=True)
class Attention:
    """Of one person. Attributes: judged, pairs; right, of so many questions with a known answer."""

    person: str
    judged: int
    questions: int
    right: int


@dataclass(frozen=True)
class Figures:
    """Everything that a study's page shows.

    Attributes:
        verdicts: how often each was given.
        agreements: of every two who share pairs.
        alpha: Krippendorff's over all; None where it is undefined.
        wins: of the first policy over the second.
        ranking: the strongest first; empty where no two policies met.
        attention: by person.
    """

    verdicts: dict[Verdict, int]
    agreements: list[Agreement]
    alpha: float | None
    wins: list[tuple[str, str, WinRate]]
    ranking: list[Ranked]
    attention: list[Attention]


def join(pairs: Sequence[Pair], judged: Sequence[tuple[Judgement, str]]) -> list[JudgedPair]:
    """Pairs with what was said of them. Args: pairs, of a study; judged, judgements and the names of who gave them."""
    verdicts: dict[int, dict[str, Verdict]] = {pair.id: {} for pair in pairs}
    for judgement, name in judged:
        verdicts[judgement.pair_id][name] = judgement.verdict
    return [
        JudgedPair(prompt_key(pair.turns), (pair.policy_a, pair.policy_b), pair.gold, verdicts[pair.id])
        for pair in pairs
    ]


def compute(pairs: Sequence[JudgedPair]) -> Figures:
    """The figures of a study. Args: pairs, all of it, judged or not."""
    plain = [pair for pair in pairs if pair.gold is None and pair.verdicts]
    people = sorted({person for pair in pairs for person in pair.verdicts})
    counted = Counter(verdict for pair in plain for verdict in pair.verdicts.values())
    met = [pair for pair in plain if pair.policies[0] != pair.policies[1]]
    return Figures(
        verdicts={verdict: counted[verdict] for verdict in Verdict},
        agreements=list(_agreements(plain, people)),
        alpha=krippendorff_alpha([[pair.verdicts.get(person) for pair in plain] for person in people]),
        wins=list(_win_rates(met)),
        # Of a pair's several judgements one comparison: they are not independent, and would narrow the intervals.
        ranking=rank([Comparison(*pair.policies, pair.points) for pair in met]) if met else [],
        attention=[_attention(person, pairs) for person in people],
    )


def _agreements(pairs: Sequence[JudgedPair], people: Sequence[str]) -> Iterable[Agreement]:
    for first, second in combinations(people, 2):
        both = [pair.verdicts for pair in pairs if first in pair.verdicts and second in pair.verdicts]
        if both:
            kappa = cohen_kappa([each[first] for each in both], [each[second] for each in both])
            yield Agreement((first, second), len(both), kappa)


def _win_rates(pairs: Sequence[JudgedPair]) -> Iterable[tuple[str, str, WinRate]]:
    by_policies: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        a, b = pair.policies
        first, second = sorted((a, b))
        by_policies[first, second][pair.prompt].append(pair.points if a == first else 1 - pair.points)
    for (first, second), prompts in sorted(by_policies.items()):
        # Responses to one prompt are not independent: a prompt counts once.
        outcomes = [float(np.mean(points)) for points in prompts.values()]
        yield (
            first,
            second,
            {"win_rate": float(np.mean(outcomes)), "ci95": mean_interval(outcomes), "n": len(outcomes)},
        )


def _attention(person: str, pairs: Sequence[JudgedPair]) -> Attention:
    judged = [(pair.gold, pair.verdicts[person]) for pair in pairs if person in pair.verdicts]
    questions = [(gold, verdict) for gold, verdict in judged if gold is not None]
    return Attention(person, len(judged), len(questions), sum(gold == verdict for gold, verdict in questions))
