"""The design of bench-learning: its variants, its cells, and the jobs of a cell. Runs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.contracts.jobs import PpoJobConfig, RewardModelJobConfig
from rlhf.contracts.reward import Aggregation
from rlhf.demo.preset import Plan, make_plan

PRESET = Path(__file__).with_name("preset.json")
"""The demo's jobs with a KL weight a tenth of its own or less, a higher learning rate and more steps, so that they go
far beyond the KL that the demo keeps to; and without its penalty on repeated n-grams, which hides a way to cheat."""

EVERY = 10
"""Steps between evaluations."""


@dataclass(frozen=True)
class Variant:
    """What a policy is trained against.

    Attributes:
        name: in file names and on the command line.
        label: for people.
        members: reward models in the bundle.
        aggregation: how their scores become the proxy reward.
    """

    name: str
    label: str
    members: int
    aggregation: Aggregation


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("single", "single reward model", 1, Aggregation(method="mean")),
        Variant("mean", "ensemble of 5, mean", 5, Aggregation(method="mean")),
        Variant("penalised", "ensemble of 5, mean - 1.0·std", 5, Aggregation(method="lcb", lambda_=1.0)),
    )
}
"""λ = 1 was set before the first run, and nothing was tuned on any variant's result."""


@dataclass(frozen=True)
class Cell:
    """One seed of one variant.

    Attributes:
        seed: of everything random.
        variant: what is trained against.
        plan: the seed's jobs and held-out prompts, the same for every variant.
    """

    seed: int
    variant: Variant
    plan: Plan

    @property
    def name(self) -> str:
        """Of its files."""
        return f"seed{self.seed}-{self.variant.name}"

    @property
    def reward_model(self) -> RewardModelJobConfig:
        """The bundle's training; equal configs, those of both ensembles of a seed, mean the same bundle."""
        return self.plan.reward_model.model_copy(update={"members": self.variant.members})

    def ppo(self, reward_model: str) -> PpoJobConfig:
        """The policy's training. Args: reward_model, the bundle."""
        update = {"reward_model": reward_model, "aggregation": self.variant.aggregation}
        return self.plan.ppo.model_copy(update=update)

    @property
    def checkpoints(self) -> list[int]:
        """Steps after which the policy is evaluated; 0 is the base model."""
        steps = self.plan.ppo.steps
        return sorted({*range(0, steps, EVERY), steps})

    def digest(self, model: str) -> str:
        """Of all that decides the result: a cell of another digest is another cell. Args: model, the base model's."""
        parts = [
            self.reward_model.model_dump_json(by_alias=True),
            self.ppo("bundle@1").model_dump_json(by_alias=True),
            self.plan.evaluation.model_dump_json(),
            json.dumps([row["id"] for row in self.plan.heldout]),
            json.dumps([self.checkpoints, Path(model).name]),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def job_key(config: RewardModelJobConfig | PpoJobConfig) -> str:
    """The Idempotency-Key under which a run that goes on finds the job that an earlier one submitted."""
    return "bench-learning-" + hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()[:32]


def make_cells(preset: Path, seeds: Sequence[int], variants: Sequence[str], *, steps: int | None) -> list[Cell]:
    """All cells, seed by seed, so that a run cut short has whole comparisons.

    Args:
        preset: a file as the demo's; members and aggregation are the variant's.
        seeds: one set of runs each.
        variants: names.
        steps: PPO steps in place of the preset's.

    Raises:
        PresetInvalid: it cannot be run.
    """
    cells = []
    for seed in seeds:
        plan = make_plan(preset, seed=seed, steps=steps)
        cells += [Cell(seed, VARIANTS[name], plan) for name in variants]
    return cells
