"""Advantages. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, response_mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (1506.02438, eq. 11 and 16) over response tokens.

    δ_t = r_t + γ·V_{t+1} - V_t;  A_t = δ_t + γλ·A_{t+1};  V after the last token is 0.

    Args:
        rewards: [B, T].
        values: [B, T], V of the state before each response token.
        response_mask: [B, T] bool.
        gamma: discount.
        lam: λ.

    Returns:
        advantages [B, T] and returns [B, T] = A + V; both 0 outside the mask.
    """
    mask = response_mask.to(values.dtype)
    values, rewards = values * mask, rewards * mask
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        # Outside the mask delta is 0 and nothing has been accumulated yet: the mask is a prefix of each row.
        running = delta + gamma * lam * running
        advantages[:, t] = running
        following = values[:, t]
    advantages = advantages * mask
    return advantages, advantages + values


def whiten(advantages: Tensor, response_mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean 0 and variance 1 over the masked tokens of the batch (population variance); 0 outside the mask."""
    chosen = advantages[response_mask]
    centred = (advantages - chosen.mean()) * torch.rsqrt(chosen.var(unbiased=False) + eps)
    return torch.where(response_mask, centred, 0.0)


def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> float:
    """1 - Var(R - V)/Var(R) over masked tokens; 0 when returns do not vary."""
    wanted, given = returns[response_mask], values[response_mask]
    variance = wanted.var(unbiased=False)
    return float(1 - (wanted - given).var(unbiased=False) / variance) if float(variance) > 0 else 0.0
