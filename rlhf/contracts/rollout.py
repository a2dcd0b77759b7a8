"""The queue message of a rollout: everything a worker needs, so that a repeated task makes the same request."""

from __future__ import annotations

from pydantic import Field

from rlhf.contracts.base import ArtifactRef, Contract, Prompt
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.reward import Aggregation, Objectives


class RolloutTask(Contract):
    """One shard of one PPO step."""

    job: str
    step: int = Field(ge=0)
    shard: int = Field(ge=0)
    policy_version: int = Field(ge=0)
    adapter: ArtifactRef | None = Field(description="null: the base model (version 0)")
    prompts: list[Prompt] = Field(min_length=1)
    sampling: SamplingParams = Field(description="seed is set: it derives from job seed, step and shard")
    reward_model: ArtifactRef
    aggregation: Aggregation
    objectives: Objectives | None = None

    @property
    def batch_id(self) -> str:
        """`{job}:{step}:{shard}`: the same for every repetition of this task."""
        return f"{self.job}:{self.step}:{self.shard}"
