"""One forward pass over new tokens of a batch, with what came before in a `SlotCache`. Two ways, one interface.

`ModelForward` calls the model's own code and serves any causal language model. `FusedForward` computes the common
layout (Llama, Mistral, Qwen) itself: four products a layer in place of seven, queries of one key head attended
together, residuals without copies. `build_forward` chooses, and compares the choice with the model's own plain pass.
"""

from __future__ import annotations

import inspect
import logging
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.lm.loading import LanguageModel
from services.policy.engine.cache import LayerShape, SlotCache, layer_shapes
from services.policy.engine.fused import FusedForward, can_fuse
from services.policy.engine.linears import ExchangeableVector, LinearFactory, Places, replace_linears

log = logging.getLogger(__name__)
PROBE = (12, 5)
"""Lengths of the two prompts that a new forward pass is tried on."""


class Forward(Protocol):
    """Computes the columns that come next for every row of a cache's window.

    Args of both methods: ids [B, T]; mask [B, L] bool, what each row may see of the cache's L = width + T columns (its
    pads are False); positions [B, T]; cache, whose layers are written and which the caller advances.
    """

    shapes: list[LayerShape]

    def last(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Logits [B, V] float32 after the last column."""

    def every(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Logits [B, T, V] float32 after each column."""


class ModelForward:
    """The model's own forward pass."""

    def __init__(self, model: PreTrainedModel, shapes: list[LayerShape]) -> None:
        """Args: model, whose attention reads a `transformers` cache; shapes, of its layers' caches."""
        self._model, self.shapes = model, shapes
        self._last_only = "logits_to_keep" in inspect.signature(model.forward).parameters

    def last(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """See Forward."""
        extra = {"logits_to_keep": 1} if self._last_only else {}
        return self._logits(ids, mask, positions, cache, extra)[:, -1]

    def every(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """See Forward."""
        return self._logits(ids, mask, positions, cache, {})

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache, extra: dict[str, int]) -> Tensor:
        output = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **extra
        )
        return cast(Tensor, output.logits.float())


@torch.inference_mode()
def build_forward(base: LanguageModel, *, packed: bool) -> tuple[Forward, Places]:
    """The fastest forward pass for this model, whose own linear layers it takes over.

    Args:
        base: in evaluation mode; its own forward pass may not work afterwards.
        packed: use oneDNN's blocked weight layout where this machine can.

    Returns:
        The forward pass, and where the model's weights stand.

    Raises:
        ValueError: it differs from the model's own, so that generation would follow another model.
    """
    model, vocabulary = base.model, int(base.model.config.vocab_size)
    prompts = [[(7 * i + 3) % vocabulary for i in range(length)] for length in PROBE]
    wanted = [
        model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1] for ids in prompts
    ]
    shapes = layer_shapes(model)
    factory = LinearFactory(model, packed=packed)
    forward: Forward
    if can_fuse(model):
        forward = FusedForward(model, shapes, factory)
    else:
        replace_linears(model, factory)
        forward = ModelForward(model, shapes)
    log.info("forward pass chosen", extra={"kind": type(forward).__name__, "linears": len(factory.places)})
    check_forward(forward, str(model.config.model_type), prompts, wanted)
    # The linear layers are no part of the model any more, in either way.
    vectors = {name: ExchangeableVector(p) for name, p in model.named_parameters() if p.ndim == 1}
    return forward, Places(factory.places, vectors)


@torch.inference_mode()
def check_forward(
    forward: Forward, family: str, prompts: list[list[int]], wanted: list[Tensor], *, tolerance: float = 1e-3
) -> None:
    """Computes two prompts side by side, their last token with the cache, and compares with plain passes.

    Args:
        forward: what to check.
        family: for messages.
        prompts: two, the first the longer.
        wanted: [V] logits after each, from the model's own forward pass.
        tolerance: relative to the largest logit.

    Raises:
        ValueError: they differ by more than tolerance.
    """
    device = forward.shapes[0].device
    width = len(prompts[0]) - 1
    starts = torch.tensor([width - len(ids) + 1 for ids in prompts], device=device)
    padded = torch.tensor([[ids[0]] * (len(prompts[0]) - len(ids)) + ids for ids in prompts], device=device)
    mask = torch.arange(width + 1, device=device) >= starts[:, None]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    cache = SlotCache(forward.shapes, rows=2, columns=width + 1)
    cache.window.rows = 2
    # In three parts, as long prompts are: the cache must work for the second as well.
    for first, last in ((0, 4), (4, width), (width, width + 1)):
        ours = forward.last(padded[:, first:last], mask[:, :last], positions[:, first:last], cache)
        cache.advance(last - first)
    for row, own in enumerate(wanted):
        worst = float((ours[row] - own).abs().max() / own.abs().max().clamp_min(1.0))
        if not worst <= tolerance:
            raise ValueError(
                f"decoding {family} with a cache differs from its forward pass by {worst:.2g} (relative; allowed "
                f"{tolerance}); this family's attention cannot be served yet"
            )
