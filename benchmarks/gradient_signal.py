"""`make bench-gradient-signal`: how much of a policy gradient is signal, by GAE's λ and by layer.

Two halves of one draw of base-model responses, with no prompt in common, give two gradients of the same thing. What
they share is signal, the rest is the noise of the draw. For each λ:

    unbiased   the half's gradient times the other half's at λ = 1, which is unbiased: the signal it follows
    noise      its squared norm less its product with the other half's own: what it follows besides
    samples    unbiased² / noise, relative to λ = 1: with this λ a sample is worth so many samples with λ = 1, while the
               noise prevails

The reward is the demo's rubric, less the mean of the prompt's other samples; prompts are the demo's training prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
from collections.abc import Sequence
from typing import Any

LAMBDAS = (1.0, 0.95, 0.9, 0.8, 0.6, 0.3)
SAMPLES = 8


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-gradient-signal", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=96, help="half of them for each gradient")
    parser.add_argument("--top-layers", type=int, default=10, help="layers with an adapter")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch threads")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    names, halves = collect(options.prompts, options.top_layers)
    by_lambda = {lam: compare(halves, lam) for lam in LAMBDAS}
    unit = by_lambda[1.0]["samples"]
    print(f"\n{options.prompts} prompts × {SAMPLES} samples, adapters in the top {options.top_layers} layers\n")
    print(f"{'λ':>5} {'cosine of the halves':>21} {'unbiased':>9} {'noise':>8} {'samples':>8}")
    for lam, row in by_lambda.items():
        row["samples"] /= unit
        print(f"{lam:>5} {row['cosine']:>21.2f} {row['unbiased']:>9.3g} {row['noise']:>8.3g} {row['samples']:>7.1f}×")
    layers = sorted({layer_of(name) for name in names})
    shares = {layer: compare(halves, 0.95, [layer_of(name) == layer for name in names]) for layer in layers}
    total = sum(row["signal"] for row in shares.values())
    print(f"\n{'layer':>5} {'share of the signal':>21} {'cosine of the halves':>21}   (λ = 0.95)")
    for layer, row in shares.items():
        row["share"] = row["signal"] / total
        print(f"{layer:>5} {row['share']:>21.0%} {row['cosine']:>21.2f}")
    print(json.dumps({"by_lambda": by_lambda, "by_layer": shares}))
    return 0


def collect(prompts: int, top_layers: int) -> tuple[list[str], list[dict[float, list[Any]]]]:
    """Names of the adapter's tensors, and each half's gradients by λ."""
    from rlhf.contracts.jobs import LoraConfig
    from rlhf.demo.dataset import load_prompts
    from rlhf.lm.loading import load_language_model
    from rlhf.local.weights import ensure_smollm2
    from services.trainer.ppo.actor import Actor

    source = str(ensure_smollm2())
    rows = load_prompts("train")
    random.Random(0).shuffle(rows)
    print("sampling", file=sys.stderr)
    batch = sample(source, rows[:prompts])
    actor = Actor(
        load_language_model(source), LoraConfig(r=16, alpha=32.0, top_layers=top_layers), temperature=0.7, seed=0
    )
    # The factor B starts at 0, so A has no gradient yet.
    names = [name for name in actor.trainable() if "lora_B" in name]
    halves = []
    for half in (0, 1):
        print(f"gradients of half {half + 1} of 2", file=sys.stderr)
        halves.append(gradients(actor, batch, names, [i for i in range(len(batch)) if batch.group[i] % 2 == half]))
    return names, halves


def sample(source: str, rows: Sequence[Any]) -> Any:
    """Base-model responses with the rubric's scores, as one experience batch."""
    import numpy as np

    from rlhf.artifacts.store import ArtifactStore
    from rlhf.contracts.policy import SamplingParams
    from rlhf.demo.preset import conversation
    from rlhf.demo.rubric import score
    from rlhf.lm.chat import encode_prompt
    from services.policy.engine.stops import decode_text
    from services.policy.loading import load_engine
    from services.policy.settings import PolicySettings
    from services.trainer.experience.batch import ExperienceBatch

    settings = PolicySettings(model=source, max_batch_rows=8 * SAMPLES)
    engine = load_engine(settings, ArtifactStore(settings.store))
    engine.start()
    sampling = SamplingParams(max_new_tokens=40, temperature=0.7, n=SAMPLES, seed=0)
    ids = [encode_prompt(engine.base.tokenizer, conversation(row)) for row in rows]
    made = engine.submit(ids, sampling).outcome.result().rows
    engine.stop()
    texts = [decode_text(engine.base.tokenizer, row.token_ids) for row in made]
    scores = [score(rows[row.prompt_index]["prompt"], text).total for row, text in zip(made, texts, strict=True)]
    rewards = np.array(scores, np.float32)
    return ExperienceBatch(
        batch_id="bench:0:0",
        job="bench",
        step=0,
        shard=0,
        policy_version=0,
        group=np.array([row.prompt_index for row in made], np.int32),
        prompt_ids=[np.array(row.prompt_ids, np.int32) for row in made],
        response_ids=[np.array(row.token_ids, np.int32) for row in made],
        behavior_logprobs=[np.array(row.behavior_logprobs, np.float32) for row in made],
        ended=np.array([row.finish_reason != "length" for row in made]),
        rewards=rewards,
        scores=rewards,
        uncertainty=np.zeros_like(rewards),
        members=rewards[:, None],
        responses=texts,
        prompts=[rows[row.prompt_index]["prompt"] for row in made],
    )


def gradients(actor: Any, batch: Any, names: list[str], samples: list[int]) -> dict[float, list[Any]]:
    """Gradients of Σ A·log π over some samples, for each λ; values are 0, as a fresh value head's."""
    import torch

    from services.trainer.ppo.advantages import gae
    from services.trainer.ppo.collate import collate, split_by_tokens
    from services.trainer.ppo.rewards import leave_one_out, shape_rewards

    rollout = collate([batch], row_tokens=4096)
    mask, zeros = rollout.response_mask, torch.zeros(rollout.response_ids.shape)
    shaped = shape_rewards(leave_one_out(rollout.rewards, rollout.group), zeros, zeros, mask, 0.0)
    advantages = {lam: gae(shaped, zeros, mask, 1.0, lam)[0] for lam in LAMBDAS}
    parameters = [actor.trainable()[name] for name in names]
    sums = {lam: [torch.zeros_like(parameter) for parameter in parameters] for lam in LAMBDAS}
    wanted = set(samples)
    rows = [i for i, row in enumerate(rollout.rows) if int(row.sample[0]) in wanted]
    for part in split_by_tokens(rows, [row.length for row in rollout.rows], 2048):
        members = [rollout.rows[i] for i in part]
        new = actor(members, actor.lower_features(members), rollout.response_ids)
        for lam in LAMBDAS:
            objective = (advantages[lam][new.sample, new.offset] * new.logprobs).sum()
            for total, part_of_it in zip(
                sums[lam], torch.autograd.grad(objective, parameters, retain_graph=True), strict=True
            ):
                total += part_of_it
    return sums


def compare(
    halves: Sequence[dict[float, list[Any]]], lam: float, chosen: Sequence[bool] | None = None
) -> dict[str, float]:
    """Signal and noise of one λ. Args: chosen, which tensors count; None: all."""
    import torch

    def flat(half: int, of: float) -> Any:
        tensors = halves[half][of]
        return torch.cat(
            [t.flatten() for t, keep in zip(tensors, chosen or [True] * len(tensors), strict=True) if keep]
        )

    first, second = flat(0, lam), flat(1, lam)
    unbiased = float(first @ flat(1, 1.0) + second @ flat(0, 1.0)) / 2
    norm, signal = float(first @ first + second @ second) / 2, float(first @ second)
    return {
        "cosine": signal / norm,
        "unbiased": unbiased,
        "noise": norm - signal,
        "signal": signal,
        "samples": unbiased**2 / (norm - signal),
    }


def layer_of(name: str) -> int:
    """The layer that a tensor of the adapter belongs to."""
    found = re.search(r"layers\.(\d+)\.", name)
    if found is None:
        raise ValueError(f"{name} names no layer")
    return int(found.group(1))


if __name__ == "__main__":
    sys.exit(main())
