"""KL between policy and reference, and the controller of its weight β. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.contracts.jobs import KlConfig


@dataclass(frozen=True)
class KlEstimate:
    """Three readings of KL(π‖π_ref) on sampled tokens, nats.

    Attributes:
        sequence: k1 summed over a response's tokens, mean over responses.
        token: k1, mean over tokens.
        k3: mean over tokens of exp(r) - 1 - r with r = log π_ref - log π; never negative (Schulman 2020).
    """

    sequence: float
    token: float
    k3: float


def estimate_kl(logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor) -> KlEstimate:
    """Estimates KL from samples of the policy. All [B, T]; sums run where response_mask is True."""
    difference = torch.where(response_mask, logprobs - ref_logprobs, 0.0)
    tokens = response_mask.sum().clamp_min(1)
    k3 = torch.where(response_mask, torch.exp(-difference) - 1 + difference, 0.0)
    return KlEstimate(
        sequence=float(difference.sum(-1).mean()),
        token=float(difference.sum() / tokens),
        k3=float(k3.sum() / tokens),
    )


class KlController:
    """Moves β after every step: fixed, linear to 0, or adaptive (1909.08593, eq. in section 2.2).

    Adaptive: β ← β·(1 + clip(KL/target - 1, ±0.2)·n/horizon). KL is 0 at the first step by construction, so β does not
    fall below its start before KL has reached the target once; a β lowered in that time overshoots later.
    """

    def __init__(self, config: KlConfig, total_steps: int) -> None:
        """Args: config; total_steps, over which the linear schedule falls to 0."""
        self.config = config
        self.total_steps = total_steps
        self.beta = config.beta
        self.reached = False

    def update(self, step: int, kl_sequence: float, samples: int) -> None:
        """Sets β for the next step.

        Args:
            step: the step just done, from 0.
            kl_sequence: its KL per sequence, nats.
            samples: its number of responses.
        """
        config = self.config
        if config.schedule == "linear":
            self.beta = config.beta * max(0.0, 1 - (step + 1) / self.total_steps)
        elif config.schedule == "adaptive":
            self.reached = self.reached or kl_sequence >= config.target
            error = min(0.2, max(-0.2, kl_sequence / config.target - 1))
            beta = self.beta * (1 + error * samples / config.horizon)
            self.beta = beta if self.reached else max(beta, config.beta)

    def state(self) -> dict[str, float | bool]:
        """What a checkpoint keeps."""
        return {"beta": self.beta, "reached": self.reached}

    def restore(self, state: dict[str, float | bool]) -> None:
        """Sets what `state` gave."""
        self.beta, self.reached = float(state["beta"]), bool(state["reached"])
