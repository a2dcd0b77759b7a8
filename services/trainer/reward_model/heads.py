"""The first stage of training: every member's head, on the features of the frozen trunk, at the optimum of its loss.

A head that starts at random beside adapters that start at nothing makes the adapters fit what the head could have read,
and with a few hundred pairs they then fit the pairs themselves. A head that is fitted first, under a penalty, leaves to
them what it cannot read (linear probing, then fine-tuning: 2202.10054).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rlhf.contracts.jobs import RewardModelJobConfig
from rlhf.evaluation.preferences import preference_nll
from rlhf.lm.ensemble import RewardEnsemble
from services.trainer.reward_model.bags import jury_of_heads, mean_votes
from services.trainer.reward_model.data import EncodedPairs, Role
from services.trainer.reward_model.fit import TrainingFailed
from services.trainer.reward_model.losses import preference_loss

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""λ of λ·‖w_k‖², tried from the strongest; features are normalised, so one scale serves all backbones."""
ITERATIONS = 100
"""Of L-BFGS, at most; the loss is convex, and begins where the penalty before ended."""


def fit_heads(
    ensemble: RewardEnsemble,
    features: Tensor,
    pairs: Mapping[Role, EncodedPairs],
    orders: Tensor,
    judges: Tensor,
    config: RewardModelJobConfig,
    after_fit: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Sets heads and biases to those that do best on pairs that are new to them.

    Args:
        ensemble: whose adapters do nothing yet.
        features: [N, 2d] of all exchanges, normalised.
        pairs: by role: those of `train` are fitted.
        orders: [K, n] which training pairs each member learns from; one that occurs twice counts twice.
        judges: [K, n] of `out_of_bag`; these and the validation pairs choose the penalty, see `jury_votes`.
        config: losses.
        after_fit: called after each penalty; may raise to stop.

    Returns:
        The penalty λ that was chosen, and the mean loss over members and their pairs, without it.

    Raises:
        TrainingFailed: the loss is not finite.
    """
    train, count = pairs["train"], orders.shape[1]
    weights = torch.stack([torch.bincount(order, minlength=count) for order in orders]).to(features) / count
    chosen, rejected = features[train.chosen], features[train.rejected]
    margin = config.margin_scale * train.margin.to(features.device)
    heads = torch.zeros_like(ensemble.heads, requires_grad=True)
    bias = torch.zeros_like(ensemble.bias, requires_grad=True)
    best = float("inf"), 0.0, 0.0

    def data_loss() -> Tensor:
        better, worse = (heads @ side.T + bias[:, None] for side in (chosen, rejected))
        return (weights * preference_loss(better, worse, margin, config)).sum()

    for penalty in PENALTIES:

        def objective(penalty: float = penalty) -> Tensor:
            return data_loss() + penalty * heads.square().sum()

        if not bool(torch.isfinite(data_loss().detach())):
            raise TrainingFailed(
                f"the loss of the heads is not finite; look at the pairs' margins, which margin_scale="
                f"{config.margin_scale:g} multiplies (largest: {float(train.margin.max()):g}), and lower them"
            )
        _minimise(objective, [heads, bias])
        with torch.no_grad():
            loss = preference_nll(mean_votes(jury_of_heads(features, heads, judges, pairs)))
            if loss < best[0]:
                best = loss, penalty, float(data_loss()) / len(orders)
                ensemble.heads.copy_(heads)
                ensemble.bias.copy_(bias)
        after_fit()
    return best[1:]


def _minimise(objective: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
