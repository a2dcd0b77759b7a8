"""Which pairs each member learns from, and its votes on those that it does not: a jury that costs no data.

Every member has its own bootstrap resample. A pair that a member did not draw is new to it ("out of bag", Breiman 1996,
Out-of-bag estimation), so that hundreds of votes judge penalty, epoch and temperature instead of the validation pairs'
few dozen. Prompts are drawn, not pairs: another pair of its prompt would give away much of a pair.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlhf.evaluation.preferences import Floats
from services.trainer.ppo.schedule import derive_seed
from services.trainer.reward_model.data import EncodedPairs, Role


def member_orders(prompts: Tensor, *, members: int, seed: int, epoch: int) -> Tensor:
    """Which pairs each member sees in an epoch: its own resample of prompts (same in all epochs), in its own order.

    Args:
        prompts: [N], equal for pairs of one prompt. All pairs of a drawn prompt are drawn; the last may be cut short.
        members: K.
        seed: of the job.
        epoch: shuffles.

    Returns:
        [K, N] int64 indices below N.
    """
    count = len(prompts)
    _, numbers, sizes = prompts.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
    groups = torch.split(numbers.argsort(stable=True), sizes.tolist())
    orders = []
    for member in range(members):
        draw = torch.Generator().manual_seed(derive_seed("bootstrap", seed, member))
        shuffle = torch.Generator().manual_seed(derive_seed("order", seed, member, epoch))
        drawn = torch.randint(len(groups), (count,), generator=draw).tolist()
        resample = torch.cat([groups[number] for number in drawn])[:count]
        orders.append(resample[torch.randperm(count, generator=shuffle)])
    return torch.stack(orders)


def out_of_bag(orders: Tensor, train: EncodedPairs) -> Tensor:
    """[K, N] True where a member may judge a training pair: it drew no pair of its prompt, and people judged it.

    Args:
        orders: [K, N] of `member_orders`.
        train: the pairs that are drawn. Spoilt ones are easy, and would make votes look surer than they are.
    """
    seen = torch.stack([torch.isin(train.prompt, train.prompt[order]) for order in orders])
    return ~seen & ~train.spoilt


def jury_votes(train: Tensor, judges: Tensor, validation: Tensor) -> Tensor:
    """Votes of members on pairs that are new to them.

    Args:
        train: [K, N] s_chosen - s_rejected of training pairs.
        judges: [K, N] of `out_of_bag`.
        validation: [K, M] of validation pairs, which are new to all.

    Returns:
        [K, L] with L ≤ N + M: NaN where a pair is not the member's to judge; pairs that nobody may judge are left out.
    """
    judges = judges.to(train.device)
    own = train.masked_fill(~judges, torch.nan)[:, judges.any(0)]
    return torch.cat([own, validation], dim=1)


def jury_of_heads(features: Tensor, heads: Tensor, judges: Tensor, pairs: Mapping[Role, EncodedPairs]) -> Tensor:
    """`jury_votes` of heads alone. Args: features, [N, 2d] of all exchanges; heads, [K, 2d]; the rest as there."""
    train, validation = (
        heads @ (features[pairs[role].chosen] - features[pairs[role].rejected]).T for role in ("train", "validation")
    )
    return jury_votes(train, judges, validation)


def mean_votes(votes: Tensor) -> Floats:
    """[L] mean over those members that may judge. Args: votes, [K, L] of `jury_votes`."""
    return votes.nanmean(0).double().cpu().numpy()


def judged_first(judges: Tensor) -> Tensor:
    """[K, m] indices of the pairs each member may judge, before as many others as make the rows equally long."""
    longest = int(judges.sum(1).max())
    return judges.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
