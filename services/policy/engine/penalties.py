"""Penalties and bans on tokens, written into a batch of logits. They cover prompt and response, as TGI's do.

`ids` [B, L] holds prompt and response of each row, padded on the left up to `start` [B]; pads never count.
"""

from __future__ import annotations

import torch
from torch import Tensor


def penalise_repetition(logits: Tensor, ids: Tensor, penalty: Tensor) -> Tensor:
    """Divides positive logits of tokens seen before by the penalty and multiplies negative ones (CTRL, 1909.05858).

    Args:
        logits: [B, V].
        ids: [B, L]; a pad repeats a token of its own row, so that it changes nothing.
        penalty: [B]; 1 changes nothing.

    Returns:
        The logits, changed.
    """
    seen = logits.gather(1, ids)
    factor = penalty[:, None].to(logits.dtype)
    return logits.scatter_(1, ids, torch.where(seen > 0, seen / factor, seen * factor))


def penalise_counts(logits: Tensor, ids: Tensor, start: Tensor, frequency: Tensor, presence: Tensor) -> Tensor:
    """Lowers logits of tokens seen before: by frequency for each time, by presence once (OpenAI's definition).

    Args:
        logits: [B, V].
        ids: [B, L].
        start: [B] first column of each row that is not a pad.
        frequency: [B]; 0 changes nothing.
        presence: [B]; 0 changes nothing.

    Returns:
        The logits, changed.
    """
    real = torch.arange(ids.shape[1], device=ids.device) >= start[:, None]
    counts = torch.zeros_like(logits).scatter_add_(1, ids, real.to(logits.dtype))
    said = counts.gather(1, ids)
    lowered = logits.gather(1, ids) - frequency[:, None] * said - presence[:, None] * (said > 0)
    return logits.scatter_(1, ids, lowered)


def ban_repeated_ngrams(logits: Tensor, ids: Tensor, start: Tensor, size: Tensor) -> Tensor:
    """Bans every token that would complete an n-gram that the row already has.

    Args:
        logits: [B, V].
        ids: [B, L].
        start: [B] first column of each row that is not a pad.
        size: [B] n of each row; 0 bans nothing.

    Returns:
        The logits, changed.
    """
    length = ids.shape[1]
    for n in set(size.tolist()):
        if n == 0 or n > length:
            continue
        rows = (size == n).nonzero()[:, 0]
        part = ids[rows]
        # Window w is columns w..w+n-1; its first n-1 tokens are compared with the row's last n-1.
        windows = part.unfold(1, n, 1)
        recent = part[:, length - n + 1 :]
        same = (windows[:, :, : n - 1] == recent[:, None]).all(-1)
        same &= torch.arange(windows.shape[1], device=ids.device) >= start[rows, None]
        row, window = same.nonzero(as_tuple=True)
        logits[rows[row], windows[row, window, -1]] = -torch.inf
    return logits


def ban_tokens(logits: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Bans the tokens in some rows.

    Args:
        logits: [B, V].
        rows: [B] bool, where.
        tokens: [E] token ids, which.

    Returns:
        The logits, changed.
    """
    logits[rows.nonzero(), tokens] = -torch.inf
    return logits
