"""The PPO update of one step: epochs over minibatches of rows, gradients accumulated over micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf.contracts.jobs import PpoUpdateConfig
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import Rollout
from services.trainer.ppo.losses import importance_weights, policy_loss, value_loss
from services.trainer.ppo.parallel import FILLER, Shares, Team, share_rows, whole

FIRST_RATIO_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 3e-2}
"""Mean |log ratio| that rounding explains, by the weights' type: the two passes may have other shapes."""

_READINGS = (
    "policy_loss",
    "value_loss",
    "clip_fraction",
    "approx_kl",
    "ratio",
    "log_ratio",
    "entropy",
    "importance_mean",
)
"""Of one minibatch; sums over tokens, divided by the minibatch's tokens."""


class RatioCheckFailed(RuntimeError):
    """The first minibatch's ratio is not 1: old log-probabilities and the model that learns do not belong together."""


@dataclass(frozen=True)
class Targets:
    """What the update learns from, all [B, T] on response tokens.

    Attributes:
        old_logprobs: by the learner, before the update.
        old_values: likewise.
        advantages: whitened where the job asks.
        returns: advantages + values, before whitening.
    """

    old_logprobs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass
class UpdateStats:
    """Means over the step's optimiser steps, and the first minibatch's ratio."""

    ratio_first_minibatch: float = float("nan")
    sums: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    epochs: int = 0

    def add(self, **values: float) -> None:
        """Adds one optimiser step's readings."""
        self.updates += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The readings, averaged over optimiser steps."""
        return {name: total / self.updates for name, total in self.sums.items()}


def update_policy(
    actor: Actor,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    features: Sequence[Tensor] | Mapping[int, Tensor],
    targets: Targets,
    config: PpoUpdateConfig,
    *,
    shuffle_seed: int,
    value_only: bool = False,
    shares: Shares | None = None,
) -> UpdateStats:
    """Runs the step's epochs.

    Args:
        actor: is changed.
        optimizer: over actor.trainable().
        rollout: the step's samples.
        features: lower features of the rows that this process owns.
        targets: see Targets.
        config: epochs, minibatches, clipping.
        shuffle_seed: of the minibatch order; derives from job seed and step, so a repeated step is the same.
        value_only: only the value head learns; the policy and its published adapter stay as they are.
        shares: which process computes which rows; None: this one computes all.

    Returns:
        The readings. A loss or gradient that is not finite is among them, and ends the update before the weights
        change.

    Raises:
        RatioCheckFailed: with what to look at.
    """
    stats = UpdateStats()
    shares = shares or share_rows(Team(), rollout.rows, [], config.tokens_per_microbatch)
    named = actor.trainable()
    frozen = [parameter for name, parameter in named.items() if value_only and not name.startswith("value_head.")]
    for epoch in range(config.epochs):
        kls = []
        for rows in shuffled_minibatches(len(rollout.rows), config.minibatches, shuffle_seed, epoch):
            optimizer.zero_grad(set_to_none=True)
            readings = _accumulate(actor, rollout, features, targets, config, rows, shares)
            if stats.updates == 0:
                _check_first_ratio(stats, readings, FIRST_RATIO_TOLERANCE[actor.dtype])
            for parameter in frozen:
                parameter.grad = None
            grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(named.values(), config.max_grad_norm)))
            stats.add(**readings, grad_norm=grad_norm)
            if not math.isfinite(grad_norm + readings["policy_loss"] + readings["value_loss"]):
                return stats
            optimizer.step()
            kls.append(readings["approx_kl"])
        stats.epochs = epoch + 1
        if config.max_kl_per_epoch is not None and sum(kls) / len(kls) > config.max_kl_per_epoch:
            break
    return stats


def shuffled_minibatches(rows: int, minibatches: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Row indices of each minibatch of one epoch: every row once, sizes within one of each other, none empty."""
    generator = torch.Generator().manual_seed(seed * 1009 + epoch)
    order = torch.randperm(rows, generator=generator)
    for part in torch.tensor_split(order, min(minibatches, rows)):
        yield part.tolist()


def _accumulate(
    actor: Actor,
    rollout: Rollout,
    features: Sequence[Tensor] | Mapping[int, Tensor],
    targets: Targets,
    config: PpoUpdateConfig,
    rows: list[int],
    shares: Shares,
) -> dict[str, float]:
    """Gradients of one minibatch, micro-batch by micro-batch; every sum is divided by the whole minibatch's tokens."""
    tokens = sum(rollout.rows[i].tokens for i in rows)
    totals = dict.fromkeys(_READINGS, torch.zeros(()))
    for part in shares.microbatches(rows):
        if not part:
            idle = actor([FILLER], actor.filler_features(), rollout.response_ids)
            (0.0 * (idle.logprobs.sum() + idle.values.sum())).backward()
            continue
        new = actor(
            [rollout.rows[i] for i in part],
            [features[i] for i in part],
            rollout.response_ids,
            checkpointing=config.gradient_checkpointing,
        )
        at = (new.sample, new.offset)
        old = targets.old_logprobs[at].to(actor.device)
        weights = importance_weights(old, rollout.behavior_logprobs[at].to(actor.device), config.importance_cap)
        policy = policy_loss(
            new.logprobs,
            old,
            targets.advantages[at].to(actor.device),
            weights,
            tokens,
            config.clip_ratio,
            config.dual_clip,
        )
        value = value_loss(
            new.values,
            targets.old_values[at].to(actor.device),
            targets.returns[at].to(actor.device),
            tokens,
            config.clip_value,
        )
        (policy.loss + config.value_coefficient * value).backward()  # type: ignore[no-untyped-call]
        part_readings = {
            "policy_loss": policy.loss.detach(),
            "value_loss": value.detach(),
            "clip_fraction": policy.clip_fraction,
            "approx_kl": policy.approx_kl,
            "ratio": policy.ratio,
            "log_ratio": policy.log_ratio,
            "entropy": new.entropy.sum() / tokens,
            "importance_mean": weights.sum() / tokens,
        }
        totals = {name: total + part_readings[name].cpu() for name, total in totals.items()}
    return shares.team.sum_readings(totals)


def _check_first_ratio(stats: UpdateStats, readings: dict[str, float], tolerance: float) -> None:
    stats.ratio_first_minibatch = readings["ratio"]
    # NaN passes: the update stops there, and the watchdogs name the cause.
    if readings["log_ratio"] >= tolerance:
        raise RatioCheckFailed(
            f"the mean |log ratio| of the first minibatch is {readings['log_ratio']:.3g}, it must be below "
            f"{tolerance}: old and new log-probabilities come from the same weights here. Look for dropout "
            "left on, a shifted or wrong response mask, another temperature, or weights changed between the two passes"
        )
