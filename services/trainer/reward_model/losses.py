"""The losses of pairwise preference learning, as functions of scores. Not the training loop, and no configuration."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rlhf.contracts.jobs import RewardModelJobConfig


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, *, label_smoothing: float = 0.0
) -> Tensor:
    """-(1-ε)·log σ(Δ) - ε·log σ(-Δ) with Δ = s_chosen - s_rejected - margin (Llama 2, 2307.09288, eq. 2).

    A margin asks for *more* separation: at equal scores a larger margin gives a larger loss.

    Args:
        chosen: [...] scores of the preferred responses.
        rejected: [...] scores of the others.
        margin: [...] or a number, in the unit of the scores, not negative.
        label_smoothing: ε, the share of labels taken to be wrong.

    Returns:
        [...] one loss a pair.
    """
    difference = chosen - rejected - margin
    loss = -F.logsigmoid(difference)
    if label_smoothing == 0.0:
        return loss
    return (1.0 - label_smoothing) * loss - label_smoothing * F.logsigmoid(-difference)


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(s_chosen + s_rejected)², [...]: the preference loss leaves the scores' offset free, this pins it near 0."""
    return (chosen + rejected).square()


def preference_loss(chosen: Tensor, rejected: Tensor, margin: Tensor, config: RewardModelJobConfig) -> Tensor:
    """[...] what a job minimises of its pairs: `bradley_terry_loss`, centred. Args: as there; config, of the job."""
    loss = bradley_terry_loss(chosen, rejected, margin, label_smoothing=config.label_smoothing)
    return loss + config.centring * centring_loss(chosen, rejected)
