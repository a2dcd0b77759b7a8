"""Counterfactual swaps: the same exchange about other people, scored by the reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf.contracts.base import Message, prompt_messages
from rlhf.contracts.evaluation import CounterfactualConfig
from rlhf.contracts.reward import Aggregation, RewardSample, SampleScore
from rlhf.evaluation.counterfactual import BERTRAND_NAMES, Side, Swap, gender_swap, name_swap, swap_effect
from services.trainer.evaluation.asking import Services, rewards
from services.trainer.evaluation.section import Row, chunks, failures

PAIRS_PER_UNIT = 16


@dataclass(frozen=True)
class Pair:
    """A sample that speaks of one group, and a swap that makes it speak of the other."""

    swap: str
    side: Side
    sample: int
    original: RewardSample
    swapped: RewardSample


class Swaps:
    """A section. A row is a pair with its two rewards."""

    name = "counterfactual"

    def __init__(self, config: CounterfactualConfig, *, seed: int, reward_model: str, aggregation: Aggregation) -> None:
        """Args: seed, of the bootstrap."""
        self.seed, self.reward_model, self.aggregation = seed, reward_model, aggregation
        names = BERTRAND_NAMES if config.names is None else config.names
        self.swaps = ([gender_swap()] if config.gender else []) + [name_swap(each) for each in names]
        self.samples = len(config.samples)
        self.pairs, self.mixed = make_pairs(config.samples, self.swaps)

    @property
    def units(self) -> int:
        """Requests of a few pairs each; one at least, so that a text about nobody is a result, too."""
        return max(1, chunks(len(self.pairs), PAIRS_PER_UNIT))

    def check(self) -> None:
        """Nothing can be missing."""

    def run(self, unit: int, services: Services) -> list[Row]:
        """Rewards of some pairs."""
        start = unit * PAIRS_PER_UNIT
        pairs = self.pairs[start : start + PAIRS_PER_UNIT]
        asked = [sample for pair in pairs for sample in (pair.original, pair.swapped)]
        told = rewards(services, asked, self.reward_model, self.aggregation)
        rows: list[Row] = []
        for index in range(len(pairs)):
            both = told[2 * index : 2 * index + 2]
            row: Row = {"pair": start + index}
            row["rewards"] = [each.reward if isinstance(each, SampleScore) else None for each in both]
            row["errors"] = [each.reason for each in both if not isinstance(each, SampleScore)]
            rows.append(row)
        return rows

    def summarise(self, rows: list[Row]) -> dict[str, Any]:
        """Of each swap: second group's rewards less the first's, over all texts that speak of one of the two."""
        told: dict[str, Any] = {"samples": self.samples}
        for swap in self.swaps:
            first: list[float | None] = []
            second: list[float | None] = []
            reasons: list[str] = []
            for row in rows:
                pair = self.pairs[row["pair"]]
                if pair.swap != swap.name:
                    continue
                original, swapped = row["rewards"]
                first.append(original if pair.side == "first" else swapped)
                second.append(swapped if pair.side == "first" else original)
                reasons += row["errors"]
            effect = swap_effect(first, second, seed=self.seed)
            told[swap.name] = {**effect, "mixed": self.mixed[swap.name], "not_scored": failures(reasons)}
        return told


def make_pairs(samples: list[RewardSample], swaps: list[Swap]) -> tuple[list[Pair], dict[str, int]]:
    """Every sample that speaks of one group of a swap, with its counterpart.

    Returns:
        The pairs, and by swap the samples that speak of both groups, for which no direction can be told.
    """
    pairs, mixed = [], dict.fromkeys((swap.name for swap in swaps), 0)
    for index, sample in enumerate(samples):
        turns = prompt_messages(sample.prompt)
        text = "\n".join([*(turn.content for turn in turns), sample.response])
        for swap in swaps:
            sides = swap.sides(text)
            if len(sides) == 2:
                mixed[swap.name] += 1
            elif sides:
                prompt = [Message(role=turn.role, content=swap.apply(turn.content)) for turn in turns]
                swapped = RewardSample(prompt=prompt, response=swap.apply(sample.response))
                original = RewardSample(prompt=turns, response=sample.response)
                pairs.append(Pair(swap.name, sides.pop(), index, original, swapped))
    return pairs, mixed
