"""Judgements as preference data: the majority's pairs, in the conversational format of `rlhf train`. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.console.store.models import Pair, Verdict


@dataclass(frozen=True)
class Preferences:
    """Attributes: content, JSON Lines; counts, `pairs` in it, and pairs that were left out by reason."""

    content: str
    counts: dict[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def prefer(pairs: Sequence[Pair], votes: Mapping[int, Sequence[Verdict]]) -> Preferences:
    """One row for each pair of which more than half of the judgements prefer the same response.

    Args:
        pairs: of a study, in its order.
        votes: by the pair's id; a pair without any may be missing.
    """
    counts = dict.fromkeys(("pairs", "ties", "both_bad", "no_majority", "unjudged", "gold"), 0)
    lines = []
    for pair in pairs:
        given = Counter(votes.get(pair.id, ()))
        if (reason := _left_out(pair, given)) is not None:
            counts[reason] += 1
            continue
        counts["pairs"] += 1
        lines.append(json.dumps(_row(pair, given), ensure_ascii=False) + "\n")
    return Preferences("".join(lines), counts)


def _left_out(pair: Pair, votes: Counter[Verdict]) -> str | None:
    if pair.gold is not None:
        # Their answers were known before, and often written to be told apart.
        return "gold"
    if not votes:
        return "unjudged"
    ((verdict, count),) = votes.most_common(1)
    if 2 * count <= votes.total():
        return "no_majority"
    return {Verdict.TIE: "ties", Verdict.BOTH_BAD: "both_bad"}.get(verdict)


def _row(pair: Pair, votes: Counter[Verdict]) -> dict[str, object]:
    sides = [(pair.response_a, pair.policy_a, votes[Verdict.A]), (pair.response_b, pair.policy_b, votes[Verdict.B])]
    chosen, rejected = sorted(sides, key=lambda side: side[2], reverse=True)
    return {
        "prompt": [turn.model_dump() for turn in pair.turns],
        "chosen": [{"role": "assistant", "content": chosen[0]}],
        "rejected": [{"role": "assistant", "content": rejected[0]}],
        "policies": {"chosen": chosen[1], "rejected": rejected[1]},
        "votes": {"chosen": chosen[2], "rejected": rejected[2], "neither": votes.total() - chosen[2] - rejected[2]},
    }
