"""PPO's losses. Pure functions of tensors.

Every mean is a sum over response tokens divided by `tokens`, the response tokens of the *whole* minibatch, so that
micro-batches and several processes add up to the gradient of one big batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True)
class PolicyLoss:
    """The loss and what happened to the ratio, all scalars.

    Attributes:
        loss: with gradient.
        clip_fraction: share of tokens where clipping was the larger loss.
        approx_kl: mean over tokens of (ratio - 1) - log ratio, k3 to the old policy.
        ratio: mean over tokens.
        log_ratio: mean over tokens of |new - old|.
    """

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor
    ratio: Tensor
    log_ratio: Tensor


def policy_loss(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    tokens: int,
    clip_ratio: float,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """Clipped surrogate (1707.06347, eq. 7): Σ w·max(-A·ratio, -A·clip(ratio, 1±ε)) / tokens.

    Where A < 0 a ratio far above 1 makes that loss as large as it likes; the dual clip bounds it by -c·A (1912.09729,
    eq. 5).

    Args:
        new_logprobs: [N] response tokens, with gradient.
        old_logprobs: [N].
        advantages: [N].
        weights: [N] truncated importance weights.
        tokens: of the whole minibatch.
        clip_ratio: ε.
        dual_clip: c > 1; None leaves it out.
    """
    log_ratio = (new_logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
    with torch.no_grad():
        clip_fraction = (clipped > plain).float().sum() / tokens
        approx_kl = (ratio - 1 - log_ratio).sum() / tokens
        mean_ratio = ratio.sum() / tokens
        mean_log_ratio = log_ratio.abs().sum() / tokens
    worst = torch.maximum(plain, clipped)
    if dual_clip is not None:
        worst = torch.where(advantages < 0, torch.minimum(worst, -dual_clip * advantages), worst)
    loss = (weights * worst).sum() / tokens
    return PolicyLoss(loss, clip_fraction, approx_kl, mean_ratio, mean_log_ratio)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, tokens: int, clip_value: float) -> Tensor:
    """Clipped value loss: Σ 0.5·max((V - R)², (V_old + clip(V - V_old, ±c) - R)²) / tokens. All inputs [N]."""
    clipped = old_values + (values - old_values).clamp(-clip_value, clip_value)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2).sum() / tokens


def importance_weights(old_logprobs: Tensor, behavior_logprobs: Tensor, cap: float) -> Tensor:
    """min(exp(old - behavior), C): corrects for an engine that sampled from another distribution (Yao et al. 2025)."""
    return (old_logprobs - behavior_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp().clamp_max(cap)
