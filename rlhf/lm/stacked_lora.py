"""K low-rank adapters (2106.09685) beside one frozen linear layer, run together: members are folded into the batch."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn


class StackedLoraLinear(nn.Module):
    """y_k = W x_k + b + scale · B_k A_k x_k for K members at once; W and b are shared and stay frozen.

    Attributes:
        down: [K, r, in], random at the start.
        up: [K, out, r], zero at the start, so that every member begins as the frozen layer.
    """

    def __init__(self, base: nn.Linear, *, members: int, r: int, scale: float, generator: torch.Generator) -> None:
        """Args: base, the frozen layer; members, K; r, rank; scale, of the update; generator, of `down`."""
        super().__init__()
        # In a list, so that the frozen layer is no submodule: its weights are in no state dict and no optimizer.
        self._base = [base]
        self.members, self.scale = members, scale
        down = torch.randn(members, r, base.in_features, generator=generator) / base.in_features**0.5
        self.down = nn.Parameter(down.to(base.weight.device))
        self.up = nn.Parameter(torch.zeros(members, base.out_features, r, device=base.weight.device))

    def forward(self, x: Tensor) -> Tensor:
        """[K·B, T, in] → [K·B, T, out]; the first B rows are member 0's, and so on."""
        shared: Tensor = self._base[0](x)
        members = x.reshape(self.members, -1, x.shape[-1]).to(self.down.dtype)
        update = torch.bmm(torch.bmm(members, self.down.mT), self.up.mT) * self.scale
        return shared + update.to(shared.dtype).view_as(shared)


def adapt_layer(
    layer: nn.Module, targets: Collection[str], *, members: int, r: int, scale: float, generator: torch.Generator
) -> tuple[nn.Module, dict[str, StackedLoraLinear]]:
    """A twin of a decoder layer that shares its weights and has K adapters on some of its linear modules.

    Args:
        layer: the frozen layer; left as it is.
        targets: names of linear modules, such as `q_proj`.
        members: K.
        r: rank.
        scale: of the update.
        generator: of the adapters' start.

    Returns:
        The twin, and its adapters by their path in it, in order.
    """
    frozen = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}
    twin = copy.deepcopy(layer, frozen)
    adapters: dict[str, StackedLoraLinear] = {}
    for path, module in list(twin.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in targets and isinstance(module, nn.Linear):
            adapters[path] = StackedLoraLinear(module, members=members, r=r, scale=scale, generator=generator)
            setattr(twin.get_submodule(parent), name, adapters[path])
    return twin, adapters
