"""One PPO update over several processes: whose rows, whose weights, and how results come together. Not who starts them.

Every process knows the whole step and holds a part of the weights (FSDP2) and of the lower features. It computes the
rows that it owns; losses are divided by the tokens of the whole minibatch and gradients are *summed*, so the sum is the
gradient of one process. One process alone uses none of torch.distributed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from services.trainer.ppo.collate import Row, split_by_tokens

if TYPE_CHECKING:
    from services.trainer.ppo.actor import Actor

_ZERO = torch.zeros(1, dtype=torch.int64)
FILLER = Row(_ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO)
"""A row of one token, for a process that has nothing left while others compute: gathering weights takes all of them.
What comes out of it is not used."""


@dataclass(frozen=True)
class Team:
    """The processes that learn one job together.

    Attributes:
        rank: of this process; 0 leads: it alone talks to Redis and writes.
        size: processes.
        device: type of the device that each computes on.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process talks and writes for all."""
        return self.rank == 0

    def shard(self, actor: Actor) -> None:
        """Leaves on this process's device its part of every weight; whole layers exist only while they compute.

        All parameters of the actor are DTensors from then on, those that are trained and those that are not.
        """
        if self.size == 1:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(self.device, (self.size,))
        for module in (*actor.trained.blocks(), actor):
            # Not even the root keeps whole weights after its forward pass: nothing must see yesterday's.
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            # Sums in place of means: the loss is already divided by the tokens of all processes.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        register_fsdp_forward_method(actor, "lower_features")

    def sum(self, *tensors: Tensor) -> None:
        """Adds up each tensor over the processes, in place; every process gets the same bits."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def sum_readings(self, readings: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars by name, the same names in every process → their sums over the processes."""
        together = torch.stack(list(readings.values()))
        self.sum(together)
        return dict(zip(readings, together.tolist(), strict=True))

    def check_agreement(self, what: str, value: int) -> None:
        """Raises RuntimeError unless every process has the same value: they would go on apart, or wait for ever."""
        if self.size == 1:
            return
        least, most = torch.tensor(value), torch.tensor(value)
        dist.all_reduce(least, dist.ReduceOp.MIN)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        if least != most:
            raise RuntimeError(
                f"the learner's processes disagree about {what}: one has {int(least)}, another {int(most)}; "
                "they must see the same artifact store"
            )


@dataclass(frozen=True)
class Shares:
    """Who computes which rows of a step.

    Attributes:
        team: whose processes.
        lengths: tokens of each row.
        owners: rank of the process that computes each row, in every pass of the step.
        budget: padded tokens of a micro-batch.
    """

    team: Team
    lengths: list[int]
    owners: list[int]
    budget: int

    def microbatches(self, rows: Sequence[int]) -> list[list[int]]:
        """This process's micro-batches of these rows; all processes get equally many, some of them may be empty."""
        parts = [self._parts(rows, rank) for rank in range(self.team.size)]
        mine = parts[self.team.rank]
        return mine + [[] for _ in range(max(map(len, parts)) - len(mine))]

    def _parts(self, rows: Sequence[int], rank: int) -> list[list[int]]:
        return split_by_tokens([i for i in rows if self.owners[i] == rank], self.lengths, self.budget)


def share_rows(team: Team, rows: Sequence[Row], minibatches: Sequence[Sequence[int]], budget: int) -> Shares:
    """Gives each row to one process for the whole step, so that lower features stay where they are computed.

    Greedy, longest row first: to the process that so far has the fewest tokens in the minibatches of that row.

    Args:
        team: the processes.
        rows: of the step.
        minibatches: row indices of each minibatch of each epoch.
        budget: padded tokens of a micro-batch.
    """
    lengths = [row.length for row in rows]
    owners = [0] * len(rows)
    if team.size > 1:
        groups: list[list[int]] = [[] for _ in rows]
        # The last group is the whole step: the passes before the update take all rows at once.
        for number, minibatch in enumerate([*minibatches, range(len(rows))]):
            for row in minibatch:
                groups[row].append(number)
        loads = [[0] * team.size for _ in range(len(minibatches) + 1)]
        for row in sorted(range(len(rows)), key=lambda i: -lengths[i]):
            taken = [sum(loads[group][rank] for group in groups[row]) for rank in range(team.size)]
            owners[row] = taken.index(min(taken))
            for group in groups[row]:
                loads[group][owners[row]] += lengths[row]
    return Shares(team, lengths, owners, budget)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts; a collective when it is sharded: every process must ask."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def whole_by_name(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Whole tensors on the CPU, one after the other; nothing in a process that does not keep them."""
    found = {}
    for name, tensor in tensors.items():
        complete = whole(tensor.detach())
        if keep:
            found[name] = complete.cpu().contiguous()
    return found


def placed_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor on a parameter's device, and sharded as it is; a collective then, which takes rank 0's values."""
    tensor = tensor.to(parameter.device)
    mesh: Any = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, mesh, parameter.placements)  # type: ignore[attr-defined]
