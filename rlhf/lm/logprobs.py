"""Log-probabilities of given tokens from hidden states, in chunks, without ever holding [tokens, vocabulary].

The gradient is taken by hand: with p = softmax(Wh/τ), ∂ log p(a)/∂h = (W_a - Wᵀp)/τ. It is computed in the forward
pass from the logits that are there anyway, so the backward pass costs one multiplication and no logits are kept.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 256
"""Tokens at a time: 256 x 49152 float32 logits are 50 MB."""


def token_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and the entropy of its distribution.

    Args:
        hidden: [N, d], at the position that predicts each target.
        weight: [V, d] vocabulary projection; frozen.
        targets: [N] token ids.
        temperature: τ, logits are divided by it.

    Returns:
        logprobs [N], differentiable in hidden; entropy [N], nats, without gradient. Both float32.
    """
    logprobs, entropy = _TokenLogprobs.apply(hidden, weight, targets, temperature)  # type: ignore[no-untyped-call]
    return cast(Tensor, logprobs), cast(Tensor, entropy)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        count = hidden.shape[0]
        logprobs = torch.empty(count, dtype=torch.float32, device=hidden.device)
        entropy = torch.empty_like(logprobs)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        for start in range(0, count, CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float().div_(temperature)
            normaliser = logits.logsumexp(-1, keepdim=True)
            logprobs[part] = (logits.gather(-1, targets[part, None]) - normaliser)[:, 0]
            probabilities = (logits - normaliser).exp_()
            # H = -Σ p log p = log Z - Σ p·logit
            entropy[part] = normaliser[:, 0] - torch.linalg.vecdot(probabilities, logits)
            if gradient is not None:
                expected = probabilities.to(weight.dtype) @ weight
                gradient[part] = (weight[targets[part]] - expected) / temperature
        ctx.mark_non_differentiable(entropy)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return logprobs, entropy

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_logprobs: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_logprobs[:, None].to(gradient.dtype), None, None, None
