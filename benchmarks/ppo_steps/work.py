"""The work of bench-ppo, the same for both sides: prompts, model without an end, reward model, settings. No torch."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.demo.dataset import load_prompts
from rlhf.demo.preset import conversation

PANEL = "bench-ppo@1"
"""The reference of the reward model in our reward service."""

TEMPERATURE, BETA, LEARNING_RATE, ADAM_EPS = 0.7, 0.05, 1e-4, 1e-5
PROMPT_TOKENS = 40
"""A conversation of the demo has 31 tokens with its template on average, and rarely more than this: our trainer bounds
a pass by tokens."""
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Work:
    """What is done.

    Attributes:
        model: folder of the model without an end.
        classifier: folder of the reward model, a sequence classifier of the same size.
        steps: PPO steps; those of one round, or 1 for the check.
        prompts: of one step, each with one sample.
        new_tokens: of every response.
        epochs: over a step's samples.
        minibatches: optimiser steps an epoch.
        samples_per_pass: of one forward and backward pass: what bounds the activations kept. Divides a minibatch.
        lora_r: rank; α is twice as much. All projections of the adapted layers.
        top_layers: that are adapted; null: all.
        seed: of everything.
    """

    model: Path
    classifier: Path
    steps: int
    prompts: int
    new_tokens: int
    epochs: int
    minibatches: int
    samples_per_pass: int
    lora_r: int
    top_layers: int | None
    seed: int = 0

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """As many prompts as all steps take, each once."""
        rows = load_prompts("train")
        random.Random(self.seed).shuffle(rows)
        wanted = self.steps * self.prompts
        chosen = [rows[i % len(rows)] for i in range(wanted)]
        return [[message.model_dump() for message in conversation(row)] for row in chosen]

    def job(self, *, value_coefficient: float = 0.1, max_grad_norm: float = 1.0) -> PpoJobConfig:
        """As our trainer takes it. Args: where the check departs from the timed runs."""
        return PpoJobConfig.model_validate(
            {
                "kind": "ppo",
                "prompts": self.conversations,
                "reward_model": PANEL,
                "steps": self.steps,
                "seed": self.seed,
                "rollout": {
                    "prompts_per_step": self.prompts,
                    "samples_per_prompt": 1,
                    "max_new_tokens": self.new_tokens,
                    "temperature": TEMPERATURE,
                    "missing_eos_penalty": 0.0,
                },
                "update": {
                    "epochs": self.epochs,
                    "minibatches": self.minibatches,
                    "tokens_per_microbatch": self.samples_per_pass * (PROMPT_TOKENS + self.new_tokens),
                    "learning_rate": LEARNING_RATE,
                    "baseline": "none",
                    "value_coefficient": value_coefficient,
                    "max_grad_norm": max_grad_norm,
                },
                "kl": {"schedule": "fixed", "beta": BETA},
                "lora": {"r": self.lora_r, "alpha": 2.0 * self.lora_r, "top_layers": self.top_layers},
            }
        )

    def settings(self) -> dict[str, Any]:
        """As TRL's program takes it."""
        depth = int(json.loads((self.model / "config.json").read_text())["num_hidden_layers"])
        layers = None if self.top_layers is None else list(range(depth - self.top_layers, depth))
        return {
            "model": str(self.model),
            "classifier": str(self.classifier),
            "conversations": self.conversations,
            "steps": self.steps,
            "prompts": self.prompts,
            "new_tokens": self.new_tokens,
            "temperature": TEMPERATURE,
            "epochs": self.epochs,
            "minibatches": self.minibatches,
            "samples_per_pass": self.samples_per_pass,
            "learning_rate": LEARNING_RATE,
            "adam_eps": ADAM_EPS,
            "beta": BETA,
            "lora_r": self.lora_r,
            "modules": ADAPTED,
            "layers": layers,
            "seed": self.seed,
        }


def make_endless(source: Path, folder: Path) -> Path:
    """A copy of a model whose EOS and pad are tokens that it does not sample, so that every response has full length.

    Args:
        source: a model folder.
        folder: to be made; the weights are linked, not copied.

    Raises:
        ValueError: the tokenizer has no two special tokens to spare.
    """
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    names = json.loads((source / "tokenizer_config.json").read_text())
    used = {names.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    added = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    spare = [token for token in added if token["special"] and token["content"] not in used]
    if len(spare) < 2:
        raise ValueError(f"the tokenizer of {source} has {len(spare)} special tokens to spare; two are needed")
    eos, pad = spare[:2]
    _alter(folder / "tokenizer_config.json", {"eos_token": eos["content"], "pad_token": pad["content"]})
    for name in ("config.json", "generation_config.json"):
        _alter(folder / name, {"eos_token_id": eos["id"], "pad_token_id": pad["id"]})
    return folder


def write_panel(work: Work, path: Path) -> Path:
    """The file that makes the classifier a reward model of our reward service."""
    member = {"kind": "classifier", "model": str(work.classifier), "mean": 0.0, "std": 1.0}
    path.write_text(json.dumps({PANEL: {"members": [member]}}))
    return path


def _alter(path: Path, values: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) | values
    path.unlink()
    path.write_text(json.dumps(content, indent=2))
