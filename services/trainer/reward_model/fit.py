"""How the members learn once their heads are fitted: one epoch, early stopping, votes. Not the job around it.

Everything random derives from (seed, member, epoch), so an epoch that is done again after a crash is the same epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rlhf.contracts.jobs import RewardModelJobConfig
from rlhf.lm.ensemble import MEMBER_BATCH, RewardEnsemble
from rlhf.lm.readings import Readings, collate_readings
from services.trainer.reward_model.bags import judged_first, jury_votes, member_orders
from services.trainer.reward_model.data import EncodedPairs, Role
from services.trainer.reward_model.losses import preference_loss


class TrainingFailed(RuntimeError):
    """The members cannot be trained so; says why and what to change."""


@dataclass
class Progress:
    """How far training is; kept in checkpoints.

    Attributes:
        epoch: epochs done; 0: heads fitted alone.
        head_penalty: λ of λ·‖head‖², chosen as they were.
        best_epoch: the one with the lowest validation loss.
        best_loss: of that epoch, nats, of the votes in `jury_votes`.
        seconds: spent in epochs, over all attempts.
        history: a row of metrics for each epoch, the 0th first.
    """

    epoch: int = 0
    head_penalty: float = 0.0
    best_epoch: int = 0
    best_loss: float = float("inf")
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def finished(self, config: RewardModelJobConfig) -> bool:
        """Whether no further epoch is due."""
        # Adapters first unsettle heads that stood at their optimum, and may pass it later: epoch 0 is no rival here.
        losses = [row["validation_loss"] for row in self.history[1:]]
        waited = len(losses) - 1 - losses.index(min(losses)) if losses else 0
        return config.member_layers == 0 or self.epoch >= config.epochs or waited >= config.patience


def train_epoch(
    ensemble: RewardEnsemble,
    optimizer: torch.optim.Optimizer,
    readings: Readings,
    pairs: EncodedPairs,
    config: RewardModelJobConfig,
    progress: Progress,
    after_batch: Callable[[int, float], None],
) -> float:
    """One pass of every member over its own resample.

    A member's gradient and AdamW's moments are its own, so members train as they would alone.

    Args:
        ensemble: changed in place.
        optimizer: of its parameters.
        readings: of all exchanges.
        pairs: to learn from.
        config: batch size, losses, learning rate.
        progress: epochs done, and the heads' penalty.
        after_batch: called with the batches done in this epoch and the loss; may raise to stop.

    Returns:
        Mean loss over members and pairs, before each update.

    Raises:
        TrainingFailed: a loss is not finite.
    """
    epoch = progress.epoch
    orders = member_orders(pairs.prompt, members=config.members, seed=config.seed, epoch=epoch)
    batches = torch.split(orders, config.batch_size, dim=1)
    total = 0.0
    for number, order in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - (epoch + number / len(batches)) / config.epochs)
        optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(ensemble, readings, pairs, order, config, progress.head_penalty)
        if not bool(torch.isfinite(loss).all()):
            raise TrainingFailed(
                f"the loss of member {int((~torch.isfinite(loss)).nonzero()[0])} is not finite in epoch {epoch + 1}, "
                f"batch {number + 1}; lower learning_rate={config.learning_rate:g}"
            )
        optimizer.step()
        mean = float(loss.mean())
        total += mean * order.shape[1]
        after_batch(number + 1, mean)
    return total / orders.shape[1]


def accumulate_gradients(
    ensemble: RewardEnsemble,
    readings: Readings,
    pairs: EncodedPairs,
    order: Tensor,
    config: RewardModelJobConfig,
    head_penalty: float,
) -> Tensor:
    """Adds the gradients of a batch, as many pairs at a time as `pairs_per_microbatch` allows, and of the penalty.

    Args:
        ensemble: whose parameters get the gradients.
        readings: of all exchanges.
        pairs: that order indexes.
        order: [K, B], the batch of each member.
        config: losses and memory bound.
        head_penalty: λ.

    Returns:
        [K] mean loss of each member, without the penalty and without a graph.
    """
    size = order.shape[1]
    means = torch.zeros(len(order), device=readings.closing.device)
    torch.autograd.backward(head_penalty * ensemble.heads.square().sum())
    for part in torch.split(order, config.pairs_per_microbatch or size, dim=1):
        loss = pair_losses(ensemble, readings, pairs, part, config).sum(1) / size
        torch.autograd.backward(loss.sum())
        means += loss.detach()
    return means


def half_precision(device: torch.device) -> torch.dtype | None:
    """What a GPU multiplies matrices in beside float32 without a loss of range: bfloat16, where it has it."""
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_it else None


def pair_losses(
    ensemble: RewardEnsemble, readings: Readings, pairs: EncodedPairs, order: Tensor, config: RewardModelJobConfig
) -> Tensor:
    """[K, B] losses of each member on its own pairs. Args: order, [K, B] indices of pairs."""
    chosen, rejected = _sides(ensemble, readings, pairs, order)
    margin = config.margin_scale * pairs.margin[order].to(chosen.device)
    return preference_loss(chosen, rejected, margin, config)


def jury_differences(
    ensemble: RewardEnsemble, readings: Readings, pairs: Mapping[Role, EncodedPairs], judges: Tensor
) -> Tensor:
    """[K, L] raw `jury_votes`, on the CPU. Args: readings, of all pairs; judges, [K, N] of `out_of_bag`."""
    train = pairs["train"]
    own = torch.zeros(judges.shape)
    # A third of the pairs, and none of them by all members: every member gets a batch of its own.
    for part in torch.split(judged_first(judges), MEMBER_BATCH, dim=1):
        with torch.no_grad():
            chosen, rejected = _sides(ensemble, readings, train, part)
        own.scatter_(1, part, (chosen - rejected).cpu())
    return jury_votes(own, judges, raw_differences(ensemble, readings, pairs["validation"]))


def _sides(ensemble: RewardEnsemble, readings: Readings, pairs: EncodedPairs, order: Tensor) -> tuple[Tensor, Tensor]:
    both = torch.cat([pairs.chosen[order], pairs.rejected[order]], dim=1)
    chosen, rejected = ensemble.raw_scores(collate_readings(readings, both.flatten())).chunk(2, dim=1)
    return chosen, rejected


def raw_differences(ensemble: RewardEnsemble, readings: Readings, pairs: EncodedPairs) -> Tensor:
    """[K, N] raw s_chosen - s_rejected, on the CPU."""
    used = pairs.used
    raw = ensemble.raw_scores_of(readings, used).cpu()
    place = {index: column for column, index in enumerate(used.tolist())}
    chosen = torch.tensor([place[index] for index in pairs.chosen.tolist()])
    rejected = torch.tensor([place[index] for index in pairs.rejected.tolist()])
    return raw[:, chosen] - raw[:, rejected]


def make_optimizer(ensemble: RewardEnsemble, config: RewardModelJobConfig) -> torch.optim.Optimizer:
    """AdamW over the members' parameters; decay is the adapters', since heads have a penalty of their own."""
    groups = [
        {"params": list(ensemble.adapters.parameters()), "weight_decay": config.weight_decay},
        {"params": [ensemble.heads, ensemble.bias], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate)


def tensors_of(ensemble: RewardEnsemble) -> dict[str, nn.Parameter]:
    """All tensors of an ensemble by name, as parameters that share their storage (checkpoints are made of those)."""
    parameters = dict(ensemble.named_parameters())
    buffers = {name: nn.Parameter(buffer, requires_grad=False) for name, buffer in ensemble.named_buffers()}
    return {**parameters, **buffers}


def copy_tensors(tensors: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The same values in their own storage."""
    return {name: nn.Parameter(tensor.detach().clone(), requires_grad=False) for name, tensor in tensors.items()}
