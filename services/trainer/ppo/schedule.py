"""What a step is made of: its prompts, seeds and learning rate, all functions of (job config, step). No state.

A step that is done again after a crash therefore asks for the same rollouts.
"""

from __future__ import annotations

import hashlib
import math
import random

from rlhf.contracts.base import Prompt
from rlhf.contracts.jobs import PpoJobConfig, PpoUpdateConfig
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.rollout import RolloutTask


def derive_seed(*parts: int | str) -> int:
    """A seed below 2⁶³ from its parts: other parts, another seed."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8]) & (2**63 - 1)


def step_prompts(config: PpoJobConfig, step: int) -> list[Prompt]:
    """The step's prompts: the data in a new random order every pass, each prompt once a pass."""
    count, size = len(config.prompts), config.rollout.prompts_per_step
    first, end = step * size, (step + 1) * size
    orders = {}
    for turn in range(first // count, (end - 1) // count + 1):
        orders[turn] = list(range(count))
        random.Random(derive_seed("prompts", config.seed, turn)).shuffle(orders[turn])
    return [config.prompts[orders[position // count][position % count]] for position in range(first, end)]


def rollout_tasks(config: PpoJobConfig, job: str, step: int) -> list[RolloutTask]:
    """The step's rollout tasks, one a shard; prompts are dealt out evenly.

    The policy is the one of exactly `max_staleness` steps before, though a newer one may be there by the time the task
    runs: which weights sampled a step must not depend on how fast anybody was.
    """
    prompts, rollout = step_prompts(config, step), config.rollout
    version = max(0, step - rollout.max_staleness)
    tasks = []
    for shard in range(rollout.shards):
        sampling = SamplingParams(
            max_new_tokens=rollout.max_new_tokens,
            temperature=rollout.temperature,
            repetition_penalty=rollout.repetition_penalty,
            no_repeat_ngram_size=rollout.no_repeat_ngram_size,
            n=rollout.samples_per_prompt,
            seed=derive_seed("rollout", config.seed, step, shard),
        )
        task = RolloutTask(
            job=job,
            step=step,
            shard=shard,
            policy_version=version,
            adapter=f"{job}@{version}" if version else None,
            prompts=prompts[shard :: rollout.shards],
            sampling=sampling,
            reward_model=config.reward_model,
            aggregation=config.aggregation,
            objectives=config.objectives,
        )
        tasks.append(task)
    return tasks


def steps_to_ask_for(config: PpoJobConfig, step: int) -> range:
    """The steps whose rollouts must be on their way when a step begins: itself, and those sampled ahead."""
    return range(step, min(config.steps, step + config.rollout.max_staleness + 1))


def learning_rate(config: PpoUpdateConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over warmup_steps, then constant, or linear or cosine down to 0 at total_steps."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    if config.lr_schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    left = 1 - done if config.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * left
