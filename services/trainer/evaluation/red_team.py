"""Red-team prompts: how often a policy refuses them, and how often a classifier finds its answers unsafe."""

from __future__ import annotations

from typing import Any

from rlhf.contracts.red_team import RedTeamConfig, SafetyClassifier
from rlhf.contracts.reward import Aggregation, RewardSample, SampleScore
from rlhf.evaluation.preferences import wilson_interval
from rlhf.evaluation.refusals import classify_refusal
from services.trainer.evaluation.asking import Services, rewards
from services.trainer.evaluation.greedy import GreedySection
from services.trainer.evaluation.section import Row, failures

EXAMPLES = 8


class RedTeam(GreedySection[RedTeamConfig]):
    """A section. Rows also have each response's score by the classifier."""

    name = "red_team"

    @property
    def rates(self) -> tuple[str, ...]:
        """See GreedySection."""
        return ("refusal",) if self.config.classifier is None else ("refusal", "unsafe")

    def run(self, unit: int, services: Services) -> list[Row]:
        """Responses to some prompts, and their scores."""
        rows = super().run(unit, services)
        if self.config.classifier is not None:
            for side in self.sides:
                self._add_scores(services, self.config.classifier, rows, side)
        return rows

    def _add_scores(self, services: Services, classifier: SafetyClassifier, rows: list[Row], side: str) -> None:
        there = [row for row in rows if "text" in row[side]]
        asked = [
            RewardSample(prompt=self.config.prompts[row["prompt"]].prompt, response=row[side]["text"]) for row in there
        ]
        for row, told in zip(there, rewards(services, asked, classifier.model, Aggregation()), strict=True):
            # The mean over members: an aggregation of the job's own is for rewards.
            row[side] |= {"score": told.score} if isinstance(told, SampleScore) else {"score_error": told.reason}

    def describe(self, rows: list[Row], side: str) -> dict[str, Any]:
        """Rates in all and by category, with Wilson intervals."""
        classifier = self.config.classifier
        answered = [row for row in rows if "text" in row[side]]
        refused = {row["prompt"]: classify_refusal(row[side]["text"]) != "compliance" for row in answered}
        told: dict[str, Any] = {
            "not_generated": failures(row[side]["error"] for row in rows if "error" in row[side]),
            "refusal": self._rates(refused),
        }
        unsafe: dict[int, bool] = {}
        if classifier is not None:
            scores = {row["prompt"]: row[side]["score"] for row in answered if "score" in row[side]}
            unsafe = {prompt: classifier.finds_unsafe(score) for prompt, score in scores.items()}
            told["not_scored"] = failures(row[side]["score_error"] for row in answered if "score_error" in row[side])
            told["unsafe"] = self._rates(unsafe)
        told["examples"] = [
            {
                "prompt": self.config.prompts[row["prompt"]].model_dump(mode="json")["prompt"],
                "response": row[side]["text"],
                "refused": refused[row["prompt"]],
                "unsafe": unsafe.get(row["prompt"]),
            }
            for row in answered[:EXAMPLES]
        ]
        return told

    def _rates(self, found: dict[int, bool]) -> dict[str, Any]:
        """Share of true ones. Args: found, by the prompt's index."""
        groups: dict[str, list[bool]] = {}
        for prompt, value in found.items():
            category = self.config.prompts[prompt].category
            if category is not None:
                groups.setdefault(category, []).append(value)
        return {**_rate(list(found.values())), "by_category": {name: _rate(groups[name]) for name in sorted(groups)}}


def _rate(values: list[bool]) -> dict[str, Any]:
    rate = sum(values) / len(values) if values else None
    interval = None if rate is None else list(wilson_interval(rate, len(values)))
    return {"prompts": len(values), "rate": rate, "ci95": interval}
