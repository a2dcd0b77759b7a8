"""PPO once more, slowly: plain Python over one sequence at a time, through transformers' own forward pass.

It shares no code with the trainer but the model itself, and is written from the equations.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.contracts.jobs import PpoJobConfig
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.adapter import LoraWeights
from services.trainer.ppo.full import FullWeights


def whole_model(actor: Actor, ids: Tensor, *, reference: bool = False, **settings: bool) -> Any:
    """What transformers' own forward pass gives for the policy, or for the reference."""
    trained = actor.trained
    if isinstance(trained, FullWeights):
        replaced = {} if reference else trained.replaced()
        return torch.func.functional_call(trained.base.model, replaced, (), {"input_ids": ids, **settings})
    assert isinstance(trained, LoraWeights)
    with trained.peft_model.disable_adapter() if reference else nullcontext():
        return trained.peft_model(input_ids=ids, **settings)


def sequence_outputs(
    actor: Actor, prompt: list[int], response: list[int], *, reference: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, values and entropies of one response, each [T]: no padding, no mask, no split."""
    ids, n = torch.tensor([prompt + response]), len(response)
    out = whole_model(actor, ids, reference=reference, output_hidden_states=True)
    predicting = slice(len(prompt) - 1, len(prompt) - 1 + n)
    logprobs = (out.logits[0, predicting] / actor.temperature).log_softmax(-1)
    # The last hidden state is the one after the final norm.
    values = actor.value_head(out.hidden_states[-1][0, predicting])[:, 0]
    return logprobs[torch.arange(n), ids[0, len(prompt) :]], values, -(logprobs.exp() * logprobs).sum(-1)


@dataclass
class SlowStep:
    """What one epoch of one minibatch gives, before the optimiser moves."""

    policy_loss: float
    value_loss: float
    kl_sequence: float
    kl_token: float
    reward_mean: float
    explained_variance: float
    importance_mean: float
    entropy: float
    gradients: dict[str, Tensor]


def centre(rewards: list[float], group: list[int]) -> list[float]:
    """Each reward less the mean of its group's others; of everybody else's where it is alone."""
    centred = []
    for i, reward in enumerate(rewards):
        others = [r for j, r in enumerate(rewards) if j != i and group[j] == group[i]]
        others = others or [r for j, r in enumerate(rewards) if j != i] or [0.0]
        centred.append(reward - sum(others) / len(others))
    return centred


def token_rewards(reward: float, old: list[float], ref: list[float], beta: float) -> list[float]:
    """The penalty on every token, the reward on the last."""
    shaped = [-beta * (a - b) for a, b in zip(old, ref, strict=True)]
    shaped[-1] += reward
    return shaped


def repeats(ids: list[int], size: int) -> list[bool]:
    """Whether the last `size` tokens up to each one stand somewhere before, compared one by one."""
    grams = [ids[t - size + 1 : t + 1] if t >= size - 1 else None for t in range(len(ids))]
    return [gram is not None and any(gram == earlier for earlier in grams[:t]) for t, gram in enumerate(grams)]


def advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t = Σ_l (γλ)^l·δ_{t+l}: the sum itself (1506.02438, eq. 16), not the recursion."""
    following = [*values[1:], 0.0]
    deltas = [r + gamma * after - v for r, v, after in zip(rewards, values, following, strict=True)]
    return [sum((gamma * lam) ** (j - t) * deltas[j] for j in range(t, len(deltas))) for t in range(len(deltas))]


def variance(numbers: list[float]) -> float:
    """Over the population."""
    mean = sum(numbers) / len(numbers)
    return sum((x - mean) ** 2 for x in numbers) / len(numbers)


def whiten(rows: list[list[float]]) -> list[list[float]]:
    """Mean 0 and variance 1 over all tokens."""
    flat = [x for row in rows for x in row]
    mean, scale = sum(flat) / len(flat), math.sqrt(variance(flat) + 1e-8)
    return [[(x - mean) / scale for x in row] for row in rows]


def policy_term(
    new: Tensor, old: float, advantage: float, weight: float, clip: float, dual: float | None = None
) -> Tensor:
    """One token's -w·min(ratio·A, clip(ratio)·A): clipping bites where the ratio went too far in A's direction.

    The dual clip bites where the ratio went as far against it: a bad token became `dual` times as likely.
    """
    ratio = torch.exp(new - old)
    seen = float(ratio.detach())
    if dual is not None and advantage < 0 and seen > dual:
        return torch.tensor(-weight * dual * advantage)
    if advantage > 0 and seen > 1 + clip:
        return torch.tensor(-weight * (1 + clip) * advantage)
    if advantage < 0 and seen < 1 - clip:
        return torch.tensor(-weight * (1 - clip) * advantage)
    return -weight * ratio * advantage


def value_term(new: Tensor, old: float, wanted: float, clip: float) -> Tensor:
    """One token's 0.5·max((V - R)², (V_clipped - R)²): clipping bites where V left the range towards R."""
    move = float(new.detach()) - old
    if abs(move) > clip:
        bounded = old + math.copysign(clip, move)
        if (bounded - wanted) ** 2 > (float(new.detach()) - wanted) ** 2:
            return torch.tensor(0.5 * (bounded - wanted) ** 2)
    return 0.5 * (new - wanted) ** 2


def slow_step(actor: Actor, batch: ExperienceBatch, config: PpoJobConfig, beta: float) -> SlowStep:
    """The first gradient of a step over all its samples."""
    update = config.update
    pairs = [(p.tolist(), r.tolist()) for p, r in zip(batch.prompt_ids, batch.response_ids, strict=True)]
    with torch.no_grad():
        policy = [sequence_outputs(actor, *pair) for pair in pairs]
        ref = [sequence_outputs(actor, *pair, reference=True)[0].tolist() for pair in pairs]
    old, values = [p[0].tolist() for p in policy], [p[1].tolist() for p in policy]
    penalty = config.rollout.missing_eos_penalty
    rewards = [float(r) - (0 if done else penalty) for r, done in zip(batch.rewards, batch.ended, strict=True)]
    centred = centre(rewards, batch.group.tolist()) if update.baseline == "group" else rewards
    raw = []
    for i, (_, response) in enumerate(pairs):
        shaped = token_rewards(centred[i], old[i], ref[i], beta)
        for t, repeated in enumerate(repeats(response, config.rollout.repeated_ngram_size)):
            shaped[t] -= config.rollout.repeated_ngram_penalty * repeated
        raw.append(advantages(shaped, values[i], update.gamma, update.lam))
    returns = [[a + v for a, v in zip(*rows, strict=True)] for rows in zip(raw, values, strict=True)]
    used = whiten(raw) if update.whiten_advantages else raw
    tokens = sum(len(response) for _, response in pairs)
    actor.zero_grad()
    policy_sum, value_sum, weights = 0.0, 0.0, []
    for i, pair in enumerate(pairs):
        new, new_values, _ = sequence_outputs(actor, *pair)
        for t in range(len(pair[1])):
            weight = min(math.exp(old[i][t] - float(batch.behavior_logprobs[i][t])), update.importance_cap)
            weights.append(weight)
            policy_sum = policy_sum + policy_term(new[t], old[i][t], used[i][t], weight, update.clip_ratio)
            value_sum = value_sum + value_term(new_values[t], values[i][t], returns[i][t], update.clip_value)
    ((policy_sum + update.value_coefficient * value_sum) / tokens).backward()
    kls = [sum(a - b for a, b in zip(*rows, strict=True)) for rows in zip(old, ref, strict=True)]
    flat_returns, flat_values = [x for row in returns for x in row], [x for row in values for x in row]
    missed = [r - v for r, v in zip(flat_returns, flat_values, strict=True)]
    return SlowStep(
        policy_loss=float(policy_sum.detach()) / tokens,
        value_loss=float(value_sum.detach()) / tokens,
        kl_sequence=sum(kls) / len(kls),
        kl_token=sum(kls) / tokens,
        reward_mean=sum(rewards) / len(rewards),
        explained_variance=1 - variance(missed) / variance(flat_returns),
        importance_mean=sum(weights) / tokens,
        entropy=sum(float(p[2].sum()) for p in policy) / tokens,
        gradients={name: parameter.grad.clone() for name, parameter in actor.trainable().items()},
    )
