"""Filters and the draw: pure functions over a batch of scores [B, V]. A banned token has the score -inf.

Each row's result depends on that row alone, so the same seed gives the same text whatever shares the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUCLEUS_WIDTHS = (256, 4096)
"""How many of the most likely tokens are sorted before the whole vocabulary is: sorting 49152 takes 4 ms a row."""


def keep_top_k(scores: Tensor, k: Tensor) -> Tensor:
    """Bans all but the k most likely tokens of each row; tokens as likely as the k-th stay.

    Args:
        scores: [B, V].
        k: [B] int64; 0 keeps all.

    Returns:
        [B, V], a new tensor.
    """
    k = k.clamp(max=scores.shape[1])
    top = scores.topk(max(1, int(k.max())), dim=-1).values
    threshold = top.gather(1, (k - 1).clamp_min(0)[:, None])
    threshold = threshold.masked_fill((k == 0)[:, None], -torch.inf)
    return scores.masked_fill(scores < threshold, -torch.inf)


def keep_top_p(scores: Tensor, p: Tensor) -> Tensor:
    """Bans all but the nucleus of each row: the smallest set of most likely tokens with probability p or more.

    Tokens as likely as the last of the nucleus stay. (Holtzman et al. 1904.09751.)

    Args:
        scores: [B, V].
        p: [B] in (0, 1]; 1 keeps all.

    Returns:
        [B, V], a new tensor.
    """
    vocabulary = scores.shape[1]
    kept = scores.clone()
    pending = (p < 1).nonzero()[:, 0]
    for width in (*(w for w in NUCLEUS_WIDTHS if w < vocabulary), vocabulary):
        if not len(pending):
            break
        logprobs = scores[pending].log_softmax(-1)
        top = logprobs.topk(width, dim=-1).values
        mass = top.exp()
        # A token belongs to the nucleus when the tokens before it do not reach p yet; the first always does.
        size = (mass.cumsum(-1) - mass < p[pending, None]).sum(-1)
        inside = size < width if width < vocabulary else torch.ones_like(size, dtype=torch.bool)
        threshold = top.gather(1, (size - 1).clamp_min(0)[:, None])[inside]
        done = pending[inside]
        kept[done] = scores[done].masked_fill(logprobs[inside] < threshold, -torch.inf)
        pending = pending[~inside]
    return kept


def keep_min_p(scores: Tensor, p: Tensor) -> Tensor:
    """Bans tokens less likely than p times the most likely one (Nguyen et al. 2407.01082).

    Args:
        scores: [B, V].
        p: [B] in [0, 1]; 0 keeps all.

    Returns:
        [B, V], a new tensor.
    """
    threshold = scores.amax(-1, keepdim=True) + p.log()[:, None]
    return scores.masked_fill(scores < threshold, -torch.inf)


def keep_typical(scores: Tensor, mass: Tensor) -> Tensor:
    """Bans all but the locally typical set (Meister et al. 2202.00666, eq. 8).

    That is the smallest set with this probability of tokens whose information -log p is nearest to the entropy;
    tokens as near as its last stay.

    Args:
        scores: [B, V].
        mass: [B] in (0, 1]; 1 keeps all.

    Returns:
        [B, V], a new tensor.
    """
    kept = scores.clone()
    rows = (mass < 1).nonzero()[:, 0]
    logprobs = scores[rows].log_softmax(-1)
    probabilities = logprobs.exp()
    entropy = -torch.where(probabilities > 0, probabilities * logprobs, 0.0).sum(-1, keepdim=True)
    distance = (-logprobs - entropy).abs()
    nearest, order = distance.sort(-1)
    before = probabilities.gather(1, order).cumsum(-1) - probabilities.gather(1, order)
    size = (before < mass[rows, None]).sum(-1, keepdim=True)
    kept[rows] = kept[rows].masked_fill(distance > nearest.gather(1, size - 1), -torch.inf)
    return kept


def draw(scores: Tensor, uniforms: Tensor, greedy: Tensor) -> tuple[Tensor, Tensor]:
    """Draws one token a row by inverting the cumulative distribution, or takes the most likely one.

    Args:
        scores: [B, V] float32; probabilities are their softmax.
        uniforms: [B] float32 in [0, 1), each from its row's own generator.
        greedy: [B] bool, rows that take the most likely token.

    Returns:
        tokens [B] int64, and their log-probabilities [B] float32. A row without any allowed token, or with scores
        that are not numbers, has the log-probability NaN.
    """
    peak = scores.amax(-1, keepdim=True)
    weights = (scores - peak).exp_()
    # The running sum serves as the normaliser too; on CPU it accumulates in double precision.
    cumulative = torch.cumsum(weights, -1, out=weights)
    total = cumulative[:, -1:].clone()
    # A uniform near 1 times the total may round to the total, which no cumulative weight exceeds.
    target = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_(max=scores.shape[1] - 1)
    if bool(greedy.any()):
        tokens = torch.where(greedy, scores.argmax(-1), tokens)
    logprobs = scores.gather(1, tokens[:, None]) - peak - total.log()
    return tokens, logprobs[:, 0]
