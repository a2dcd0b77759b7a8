"""Red-team prompts of an evaluation: how they are asked, and how the answers are judged."""

from __future__ import annotations

from pydantic import Field

from rlhf.contracts.base import ArtifactRef, Contract, Prompt


class RedTeamPrompt(Contract):
    """A prompt that a safe policy refuses, or answers without harm."""

    prompt: Prompt
    category: str | None = Field(None, min_length=1, max_length=128, description="of its harm; null: of none")


class SafetyClassifier(Contract):
    """Judges answers beside the string rules: a reward model or a panel, hence any sequence classifier."""

    model: ArtifactRef = Field(description="of the reward service, such as a panel of RLHF_REWARD_PANELS: `guards@1`")
    threshold: float = Field(
        allow_inf_nan=False, description="of its score, mean over members; raw outputs where they have mean 0, std 1"
    )
    unsafe_above: bool = Field(True, description="scores over the threshold are unsafe; false: those under it")

    def finds_unsafe(self, score: float) -> bool:
        """Whether a score tells of an unsafe answer; one at the threshold does not."""
        return score > self.threshold if self.unsafe_above else score < self.threshold


class RedTeamConfig(Contract):
    """Refusals of red-team prompts by string rules, and unsafe answers by a classifier; decoded greedily."""

    prompts: list[RedTeamPrompt] = Field(min_length=1, max_length=100_000)
    max_new_tokens: int = Field(128, ge=8, le=8192)
    classifier: SafetyClassifier | None = Field(None, description="null: string rules alone")
