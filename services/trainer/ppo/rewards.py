"""From scores to per-token rewards. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_rewards(rewards: Tensor, ended: Tensor, missing_eos_penalty: float) -> Tensor:
    """Rewards of whole responses, less the penalty where the length limit cut one off.

    Args:
        rewards: [B] aggregated scores.
        ended: [B] bool, True where EOS or a stop sequence ended the response.
        missing_eos_penalty: unit of the reward.
    """
    return rewards - missing_eos_penalty * (~ended).to(rewards.dtype)


def leave_one_out(rewards: Tensor, group: Tensor) -> Tensor:
    """Subtracts from each reward the mean of its prompt's *other* samples (RLOO, 2402.14740, eq. 8).

    Args:
        rewards: [B].
        group: [B] ints, equal for samples of one prompt. A sample alone in its group keeps its reward less the mean of
            the whole batch's others: 0 would throw its signal away and the raw reward would dwarf the centred ones.
    """
    same = group[:, None] == group[None, :]
    others = same & ~torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)
    alone = ~others.any(-1)
    others[alone] = ~torch.eye(len(rewards), dtype=torch.bool, device=rewards.device)[alone]
    count = others.sum(-1).clamp_min(1)
    return rewards - (others.to(rewards.dtype) @ rewards) / count


def repeated_ngrams(response_ids: Tensor, response_mask: Tensor, size: int) -> Tensor:
    """Marks repetition where it happens: tokens that complete an n-gram which the same response had before.

    A penalty there names the culprits, where the reward of the whole response blames every token alike (2502.03373,
    section 3, has the same for long reasoning).

    Args:
        response_ids: [B, T].
        response_mask: [B, T] bool; True on a prefix of each row.
        size: tokens of an n-gram.

    Returns:
        [B, T] bool, False outside the mask.
    """
    repeated = torch.zeros_like(response_mask)
    lengths = response_mask.sum(-1).tolist()
    for row, (ids, length) in enumerate(zip(response_ids.tolist(), lengths, strict=True)):
        seen: set[tuple[int, ...]] = set()
        for end in range(size, length + 1):
            gram = tuple(ids[end - size : end])
            repeated[row, end - 1] = gram in seen
            seen.add(gram)
    return repeated


def shape_rewards(
    rewards: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor, beta: float
) -> Tensor:
    """Per-token rewards r_t = -β·(log π - log π_ref), plus the sequence's reward at its last token (1909.08593).

    Args:
        rewards: [B].
        old_logprobs: [B, T].
        ref_logprobs: [B, T].
        response_mask: [B, T] bool; True on a prefix of each row.
        beta: weight of the KL penalty.

    Returns:
        [B, T], 0 outside the mask.
    """
    shaped = torch.where(response_mask, -beta * (old_logprobs - ref_logprobs), 0.0)
    last = response_mask.sum(-1) - 1
    rows = torch.arange(len(rewards), device=rewards.device)
    shaped[rows, last] = shaped[rows, last] + rewards
    return shaped
