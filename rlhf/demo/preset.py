"""What the demo runs: its two jobs and its evaluation as a file, completed with the shipped data and one seed."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from rlhf.contracts.base import Contract, Message
from rlhf.contracts.jobs import PpoJobConfig, PreferencePair, RewardModelJobConfig
from rlhf.demo.dataset import SYSTEM_PROMPT, PromptRow, load_pairs, load_prompts

PRESET = Path(__file__).parents[2] / "configs" / "demo.json"
UNKNOWN_REWARD_MODEL = "not-trained-yet@1"


class PresetInvalid(ValueError):
    """The preset cannot be run; says where and why."""


class EvaluationPreset(Contract):
    """How held-out prompts are answered, before and after training."""

    prompts: int = Field(163, ge=1, description="held-out prompts, at most; all when there are fewer")
    max_new_tokens: int = Field(40, ge=1, le=8192, description="length limit of a response, tokens")
    temperature: float = Field(0.7, gt=0, le=10)
    samples_per_prompt: int = Field(
        2, ge=1, le=128, description="responses to each; more narrow the win rate's interval"
    )
    prompts_per_request: int = Field(32, ge=1, le=1024, description="prompts of one request to the policy")


class DemoPreset(Contract):
    """The file: settings of both jobs as POST /jobs takes them, without data and seeds."""

    train_pairs: int = Field(600, ge=2, description="preference pairs drawn from the training prompts, at most")
    evaluation: EvaluationPreset = Field(default_factory=EvaluationPreset)
    reward_model: dict[str, Any]
    ppo: dict[str, Any]


@dataclass(frozen=True)
class Seeds:
    """One seed a purpose, all from the demo's; the same number is never used twice."""

    demo: int
    pairs: int
    reward_model: int
    ppo: int
    evaluation: int
    bootstrap: int

    @classmethod
    def derive(cls, seed: int) -> Self:
        """Args: seed, the demo's."""
        names = ("pairs", "reward_model", "ppo", "evaluation", "bootstrap")
        return cls(seed, **{name: derive_seed(seed, name) for name in names})


@dataclass(frozen=True)
class Plan:
    """Everything that a run of the demo does, validated before anything starts.

    Attributes:
        seeds: of all that is random.
        reward_model: the first job, with its pairs.
        ppo: the second job, with its prompts; its reward model is not known yet.
        evaluation: how the held-out prompts are answered.
        heldout: the prompts that are answered before and after.
    """

    seeds: Seeds
    reward_model: RewardModelJobConfig
    ppo: PpoJobConfig
    evaluation: EvaluationPreset
    heldout: list[PromptRow]


def derive_seed(seed: int, purpose: str) -> int:
    """A seed below 2^31 for one purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:4]) & (2**31 - 1)


def make_plan(path: Path, *, seed: int, steps: int | None = None) -> Plan:
    """Reads a preset and completes it.

    Args:
        path: the preset, JSON.
        seed: decides everything that is random.
        steps: PPO steps in place of the preset's.

    Raises:
        PresetInvalid: the file is missing, or a setting is unknown or out of bounds.
    """
    seeds = Seeds.derive(seed)
    try:
        preset = DemoPreset.model_validate_json(path.read_bytes())
        reward_model = RewardModelJobConfig.model_validate(
            {
                **preset.reward_model,
                "kind": "reward_model",
                "seed": seeds.reward_model,
                "pairs": choose_pairs(preset.train_pairs, seeds.pairs),
            }
        )
        ppo = PpoJobConfig.model_validate(
            {
                **preset.ppo,
                **({} if steps is None else {"steps": steps}),
                "kind": "ppo",
                "seed": seeds.ppo,
                "prompts": [conversation(row) for row in load_prompts("train")],
                "reward_model": UNKNOWN_REWARD_MODEL,
            }
        )
    except OSError as error:
        raise PresetInvalid(f"cannot read the preset {path}: {error.strerror}; name another with --config") from error
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()
        )
        raise PresetInvalid(f"the preset {path} cannot be run: {where}") from error
    heldout = load_prompts("heldout")
    random.Random(seeds.evaluation).shuffle(heldout)
    return Plan(seeds, reward_model, ppo, preset.evaluation, heldout[: preset.evaluation.prompts])


def choose_pairs(train: int, seed: int) -> list[PreferencePair]:
    """A draw of the training pairs, and all held-out ones, on which the job measures itself."""
    rows = load_pairs("train")
    drawn = random.Random(seed).sample(rows, min(train, len(rows)))
    return [PreferencePair.model_validate(row) for row in [*drawn, *load_pairs("heldout")]]


def conversation(row: PromptRow) -> list[Message]:
    """A prompt as the policy is asked it: the task's system prompt, then the user's turn."""
    return [Message(role="system", content=SYSTEM_PROMPT), Message(role="user", content=row["prompt"])]
