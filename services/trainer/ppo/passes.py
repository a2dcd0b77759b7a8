"""The learner's own passes over a step's rollout before it learns from it. Not the update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import Rollout
from services.trainer.ppo.parallel import FILLER, Shares


@dataclass(frozen=True)
class Scored:
    """What the learner makes of a rollout, all [B, T] on the CPU, 0 outside the mask."""

    old_logprobs: Tensor
    ref_logprobs: Tensor
    old_values: Tensor


def lower_features(actor: Actor, rollout: Rollout, shares: Shares) -> dict[int, Tensor]:
    """`Actor.lower_features` of the rows that this process owns, by their index."""
    features: dict[int, Tensor] = {}
    for part in shares.microbatches(range(len(rollout.rows))):
        found = actor.lower_features([rollout.rows[i] for i in part] or [FILLER])
        features.update(zip(part, found, strict=False))
    return features


@torch.no_grad()
def score_rollout(actor: Actor, rollout: Rollout, features: Mapping[int, Tensor], shares: Shares) -> Scored:
    """Log-probabilities under policy and reference, and values, of every response token; whole in every process.

    Args:
        actor: before the update.
        rollout: of the step.
        features: of `lower_features`.
        shares: which process computes which rows.
    """
    shape = rollout.response_ids.shape
    old, ref, values = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    for part in shares.microbatches(range(len(rollout.rows))):
        rows = [rollout.rows[i] for i in part] or [FILLER]
        inputs = [features[i] for i in part] or actor.filler_features()
        policy = actor(rows, inputs, rollout.response_ids)
        reference = actor(rows, inputs, rollout.response_ids, reference=True)
        if part:
            at = (policy.sample, policy.offset)
            old[at], values[at] = policy.logprobs.cpu(), policy.values.cpu()
            ref[at] = reference.logprobs.cpu()
    # Each token was computed by one process and is 0 in the others.
    shares.team.sum(old, ref, values)
    return Scored(old, ref, values)
