"""A program of the peers' environment: TRL's PPOTrainer on the same work. Imports nothing of ours.

It reads the work and prints {steps, peak_mib} as one line of JSON; with `check` in the work, one step with captured
batch, losses and adapter. The recipe is TRL's: policy with LoRA, a value model of its own that is trained in full, the
reward model beside both, and no gradient clipping. float32 and no gradient checkpointing, which its PPO does not do.

python trl_program.py WORK.json
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class Clock(TrainerCallback):
    """Seconds of every step but the first, by phase; phases are timed around TRL's own functions."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._phases = {"rollout": 0.0, "score": 0.0}
        self._ended: float | None = None

    def timed(self, phase: str, function: Callable[..., Any]) -> Any:
        """Runs it, and counts its time."""
        started = time.perf_counter()
        result = function()
        self._phases[phase] += time.perf_counter() - started
        return result

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Ends a step; whatever is neither sampling nor the reward model is learning."""
        now = time.perf_counter()
        if self._ended is not None:
            total = now - self._ended
            self.steps.append({"total": total, **self._phases, "learn": total - sum(self._phases.values())})
        self._ended, self._phases = now, dict.fromkeys(self._phases, 0.0)


def main() -> int:
    """Trains and prints."""
    work = json.loads(Path(sys.argv[1]).read_text())
    torch.manual_seed(work["seed"])
    with tempfile.TemporaryDirectory(prefix="trl-bench-") as folder:
        trainer, clock = make_trainer(work, folder), Clock()
        trainer.add_callback(clock)
        captured: dict[str, Any] | None = {} if "check" in work else None
        watch(trainer, clock, captured)
        if "check" in work:
            prepare_check(trainer, work["check"])
        trainer.train()
    told: dict[str, Any] = {"steps": clock.steps}
    if captured is not None:
        log = trainer.state.log_history[0]
        told = {**captured, "policy_loss": log["loss/policy_avg"], "kl": log["objective/kl"]}
    told["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(told))
    return 0


def make_trainer(work: dict[str, Any], folder: str) -> PPOTrainer:
    """The trainer on the work's models and prompts."""
    tokenizer = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    rows = [
        {"input_ids": tokenizer.apply_chat_template(each, add_generation_prompt=True, return_dict=False)}
        for each in work["conversations"]
    ]
    check = "check" in work
    args = PPOConfig(
        output_dir=folder,
        seed=work["seed"],
        total_episodes=work["steps"] * work["prompts"],
        per_device_train_batch_size=work["samples_per_pass"],
        gradient_accumulation_steps=work["prompts"] // work["samples_per_pass"],
        num_mini_batches=work["minibatches"],
        num_ppo_epochs=work["epochs"],
        local_rollout_forward_batch_size=work["samples_per_pass"],
        response_length=work["new_tokens"],
        temperature=work["temperature"],
        learning_rate=work["learning_rate"],
        lr_scheduler_type="constant",
        adam_epsilon=work["adam_eps"],
        weight_decay=0.0,
        kl_coef=work["beta"],
        vf_coef=0.0 if check else 0.1,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        num_sample_generations=0,
        disable_tqdm=True,
    )
    data = Dataset.from_list(rows)
    return PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
        ref_model=None,  # the policy without its adapter
        reward_model=AutoModelForSequenceClassification.from_pretrained(work["classifier"], dtype=torch.float32),
        value_model=AutoModelForSequenceClassification.from_pretrained(work["classifier"], dtype=torch.float32),
        train_dataset=data,
        eval_dataset=data,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=work["lora_r"],
            lora_alpha=2 * work["lora_r"],
            lora_dropout=0.0,
            target_modules=work["modules"],
            layers_to_transform=work["layers"],
        ),
    )


def watch(trainer: PPOTrainer, clock: Clock, captured: dict[str, Any] | None) -> None:
    """Puts the clock around sampling and reward model. Args: captured, receives the batch; None where time counts."""
    sample, reward, pad = ppo_trainer.batch_generation, ppo_trainer.get_reward, trainer.processing_class.pad_token_id

    def timed_sample(model: Any, queries: torch.Tensor, *rest: Any) -> Any:
        made, logits = clock.timed("rollout", lambda: sample(model, queries, *rest))
        if captured is not None:
            responses = made[:, queries.shape[1] :]
            captured["prompt_ids"] = [row[row != pad].tolist() for row in queries]
            captured["response_ids"] = responses.tolist()
            captured["behavior_logprobs"] = logits.log_softmax(-1).gather(-1, responses[..., None])[..., 0].tolist()
        return made, logits

    def timed_reward(model: Any, *rest: Any) -> Any:
        if model is not trainer.reward_model:  # the value model, which is the learner's
            return reward(model, *rest)
        scored = clock.timed("score", lambda: reward(model, *rest))
        if captured is not None:
            captured["scores"] = scored[1].tolist()
        return scored

    ppo_trainer.batch_generation, ppo_trainer.get_reward = timed_sample, timed_reward


def prepare_check(trainer: PPOTrainer, check: dict[str, Any]) -> None:
    """What makes one step comparable number by number.

    Values are 0, as a fresh value head's of ours; the adapter is not (KL would be 0 on both sides); minibatches come in
    the order that is given.
    """
    torch.nn.init.zeros_(trainer.value_model.score.weight)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trainer.policy_model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(check["spread"] * torch.randn(parameter.shape, generator=generator))
    adapter = {name: each.contiguous() for name, each in get_peft_model_state_dict(trainer.policy_model).items()}
    save_file(adapter, check["adapter"])
    orders = iter(check["orders"])
    np.random.permutation = lambda _: np.array(next(orders))


if __name__ == "__main__":
    sys.exit(main())
