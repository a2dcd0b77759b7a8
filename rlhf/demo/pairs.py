"""Preference pairs from scored samples: which two responses of a prompt to compare, chosen so that no shortcut decides.

Most pairs one could draw are easy (one response ends, the other is cut off) and the shorter response wins most of
them. Pairs are therefore picked one by one, always towards the targets below: a mix of kinds, and the shorter response
winning about as often as the longer one within each kind.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from rlhf.demo.dataset import SYSTEM_PROMPT, Message, PairRow
from rlhf.demo.prompts import Prompt
from rlhf.evaluation.text_metrics import is_finished

MIN_MARGIN = 0.08
"""Smallest difference of the two totals for which a pair is kept."""

PAIRS_PER_PROMPT = 3
"""A prompt gives at most this many pairs."""

USES_PER_RESPONSE = 2
"""A response appears in at most this many pairs."""

KIND_TARGETS = {"one ends": 0.50, "both end": 0.38, "both cut": 0.12}
"""Share of the pairs by how many of the two responses end with a finished sentence."""

SHORTER_WINS_TARGET = 0.55
"""Share of pairs whose better response is the shorter one, in characters."""


@dataclass(frozen=True)
class ScoredResponse:
    """A response with its rubric total in [0, 1]."""

    text: str
    total: float


@dataclass(frozen=True)
class Candidate:
    """Two responses to one prompt whose totals differ by `MIN_MARGIN` or more."""

    prompt: Prompt
    chosen: ScoredResponse
    rejected: ScoredResponse

    @property
    def margin(self) -> float:
        """Difference of the totals."""
        return self.chosen.total - self.rejected.total

    @property
    def kind(self) -> str:
        """Key of `KIND_TARGETS`."""
        ends = is_finished(self.chosen.text) + is_finished(self.rejected.text)
        return ("both cut", "one ends", "both end")[ends]

    @property
    def shorter_wins(self) -> bool:
        """Whether the better response has fewer characters."""
        return len(self.chosen.text) < len(self.rejected.text)


def choose_pairs(prompts: Sequence[Prompt], responses: dict[str, list[ScoredResponse]], *, seed: int) -> list[PairRow]:
    """Choose up to `PAIRS_PER_PROMPT` pairs a prompt, balanced by kind and by which length wins.

    Args:
        prompts: All prompts.
        responses: Scored responses by prompt id; empty and repeated texts are left out.
        seed: Decides among equally useful pairs and the order in which prompts choose.

    Returns:
        Rows as in `data/pairs.jsonl`, in the order of the prompts.
    """
    rng = random.Random(seed)
    open_candidates = {p.id: list(_candidates(p, responses.get(p.id, []))) for p in prompts}
    taken: dict[str, list[Candidate]] = defaultdict(list)
    uses: Counter[tuple[str, str]] = Counter()
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    shorter: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for _ in range(PAIRS_PER_PROMPT):
        for prompt in rng.sample(list(prompts), len(prompts)):
            free = [
                candidate
                for candidate in open_candidates[prompt.id]
                if max(uses[prompt.id, side.text] for side in (candidate.chosen, candidate.rejected))
                < USES_PER_RESPONSE
                and candidate not in taken[prompt.id]
                and not _is_surplus(candidate, kinds[prompt.split])
            ]
            if not free:
                continue
            values = [_usefulness(c, kinds[prompt.split], shorter[prompt.split, c.kind]) + rng.random() for c in free]
            best = free[values.index(max(values))]
            taken[prompt.id].append(best)
            kinds[prompt.split][best.kind] += 1
            shorter[prompt.split, best.kind][best.shorter_wins] += 1
            uses.update([(prompt.id, best.chosen.text), (prompt.id, best.rejected.text)])
    return [_row(candidate) for prompt in prompts for candidate in taken[prompt.id]]


def measure_pairs(pairs: Sequence[PairRow]) -> dict[str, float]:
    """How far a rule that looks at nothing but length would get on these pairs, and how they are made up.

    Args:
        pairs: Rows, at least one.

    Returns:
        Number of pairs, accuracy of "shorter wins" and of "longer wins" (characters; a tie counts half), mean margin,
        and the share of each kind.
    """
    count = len(pairs)
    if not count:
        raise ValueError("measure_pairs got no pairs; pass at least one")
    lengths = [(len(row["chosen"][0]["content"]), len(row["rejected"][0]["content"])) for row in pairs]
    shorter = sum((chosen < rejected) + 0.5 * (chosen == rejected) for chosen, rejected in lengths) / count
    ends = Counter(
        is_finished(row["chosen"][0]["content"]) + is_finished(row["rejected"][0]["content"]) for row in pairs
    )
    return {
        "pairs": count,
        "shorter_wins": shorter,
        "longer_wins": 1 - shorter,
        "margin_mean": sum(row["margin"] for row in pairs) / count,
        "both_end": ends[2] / count,
        "one_ends": ends[1] / count,
        "both_cut": ends[0] / count,
    }


def _candidates(prompt: Prompt, responses: Sequence[ScoredResponse]) -> Iterator[Candidate]:
    unique = {response.text: response for response in responses if response.text}
    for a, b in combinations(unique.values(), 2):
        better, worse = (a, b) if a.total > b.total else (b, a)
        if better.total - worse.total >= MIN_MARGIN:
            yield Candidate(prompt, better, worse)


def _is_surplus(candidate: Candidate, kinds: Counter[str]) -> bool:
    """Two cut-off responses differ in little that matters: they are worth a small share of the pairs."""
    return candidate.kind == "both cut" and kinds["both cut"] > KIND_TARGETS["both cut"] * max(20, kinds.total())


def _usefulness(candidate: Candidate, kinds: Counter[str], shorter: Counter[bool]) -> float:
    """Larger for the kinds and lengths that are behind their targets; a clear margin and a curt loser help a little."""
    kind_gap = KIND_TARGETS[candidate.kind] - kinds[candidate.kind] / max(1, kinds.total())
    target = SHORTER_WINS_TARGET if candidate.shorter_wins else 1 - SHORTER_WINS_TARGET
    length_gap = target - shorter[candidate.shorter_wins] / max(1, shorter.total())
    curt_loser = len(candidate.rejected.text.split()) < 5
    return 8 * kind_gap + 8 * length_gap + min(candidate.margin, 0.4) / 0.4 + 1.0 * curt_loser


def _row(candidate: Candidate) -> PairRow:
    def say(role: str, content: str) -> Message:
        return {"role": role, "content": content}  # type: ignore[typeddict-item]

    prompt = candidate.prompt
    return {
        "prompt": [say("system", SYSTEM_PROMPT), say("user", prompt.prompt)],
        "chosen": [say("assistant", candidate.chosen.text)],
        "rejected": [say("assistant", candidate.rejected.text)],
        "prompt_id": prompt.id,
        "type": prompt.type,
        "split": prompt.split,
        "margin": round(candidate.margin, 4),
        "score_chosen": round(candidate.chosen.total, 4),
        "score_rejected": round(candidate.rejected.total, 4),
    }
