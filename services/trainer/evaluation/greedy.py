"""Sections that read single responses: prompts that every side answers once, greedily."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from rlhf.contracts.evaluation import XsTestConfig
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.red_team import RedTeamConfig
from services.trainer.evaluation.asking import Failure, Services, sample
from services.trainer.evaluation.section import Row, Sides, chunks, difference

PROMPTS_PER_UNIT = 16
Config = TypeVar("Config", XsTestConfig, RedTeamConfig)


class GreedySection(Generic[Config]):
    """A section. A row is a prompt: its index, and for each side `{"text"}`, or `{"error"}` with the reason."""

    def __init__(self, config: Config, sides: Sides) -> None:
        """Args: sides, who answers."""
        self.config: Config = config
        self.sides = sides

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of what `describe` gives as `{"rate"}`."""
        raise NotImplementedError

    def describe(self, rows: list[Row], side: str) -> dict[str, Any]:
        """JSON figures of one side."""
        raise NotImplementedError

    @property
    def units(self) -> int:
        """Requests of a few prompts each."""
        return chunks(len(self.config.prompts), PROMPTS_PER_UNIT)

    def check(self) -> None:
        """Nothing can be missing."""

    def run(self, unit: int, services: Services) -> list[Row]:
        """Responses to some prompts."""
        start = unit * PROMPTS_PER_UNIT
        own = [each.prompt for each in self.config.prompts[start : start + PROMPTS_PER_UNIT]]
        rows: list[Row] = [{"prompt": start + index} for index in range(len(own))]
        sampling = SamplingParams(max_new_tokens=self.config.max_new_tokens, temperature=0.0, seed=0)
        for side, ref in self.sides.items():
            for row, answer in zip(rows, sample(services, own, ref, sampling), strict=True):
                row[side] = {"error": answer.reason} if isinstance(answer, Failure) else {"text": answer[0].text}
        return rows

    def summarise(self, rows: list[Row]) -> dict[str, Any]:
        """Figures of each side, and what changed of their rates."""
        told: dict[str, Any] = {side: self.describe(rows, side) for side in self.sides}
        if len(self.sides) > 1:
            after, before = told["adapter"], told["baseline"]
            told["change"] = {name: difference(after[name]["rate"], before[name]["rate"]) for name in self.rates}
        return told
