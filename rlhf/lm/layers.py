"""A decoder's forward pass in parts: embed, run layers i..j, finish. It calls the model's own modules.

Lower layers that no adapter touches then run once for many uses (old, reference and value passes, every epoch, every
ensemble member), and the vocabulary projection runs only where a response token is predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

ROTARY_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Families of the layout `model.model.{embed_tokens, layers, norm, rotary_emb}` with plain causal attention."""

ATTENTION = {
    "rotary": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "gpt_neo": ["q_proj", "k_proj", "v_proj", "out_proj"],
}
MLP = {"rotary": ["gate_proj", "up_proj", "down_proj"], "gpt_neo": ["c_fc", "c_proj"]}
"""Names of a layer's linear modules, to which adapters attach."""


class KeyValueCache(Protocol):
    """What a layer's attention asks for the keys and values that it attends to."""

    def update(self, keys: Tensor, values: Tensor, layer: int, /) -> tuple[Tensor, Tensor]:
        """Takes the keys and values of the given positions, [B, H, L, h], and gives those of all positions."""


class LayerStack:
    """The parts of one decoder.

    Attributes:
        depth: number of layers.
        layers: its layers.
        norm: the final norm.
        attention: names of the linear modules of a layer's attention.
        lora_targets: names of all adaptable linear modules in a layer.
        packs: whether several responses may share one prompt in a row under a tree mask (no local attention windows).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Args: model, of a supported family. Raises ValueError naming the family when it is not."""
        family = str(model.config.model_type)
        if family in ROTARY_FAMILIES:
            if "sliding_attention" in (getattr(model.config, "layer_types", None) or []):
                raise ValueError(f"{family} with sliding-window attention is not supported; use a full-attention model")
            base = model.model
            self._embed, self.layers, self.norm, self._rotary = (
                base.embed_tokens,
                base.layers,
                base.norm,
                base.rotary_emb,
            )
            self.packs, layout = True, "rotary"
        elif family == "gpt_neo":
            base = model.transformer
            self._embed, self.layers, self.norm, self._rotary = base.wte, base.h, base.ln_f, None
            self._positions = base.wpe
            self.packs, layout = False, "gpt_neo"
        else:
            known = ", ".join(sorted(ROTARY_FAMILIES | {"gpt_neo"}))
            raise ValueError(f"model family {family!r} cannot be trained yet; supported families: {known}")
        self.attention, self.lora_targets = ATTENTION[layout], ATTENTION[layout] + MLP[layout]
        self.depth = len(self.layers)
        self.width = int(model.config.hidden_size)

    def with_upper(self, first: int, layers: Sequence[nn.Module], norm: nn.Module) -> Self:
        """The same decoder with other layers from `first` to the last, and another final norm."""
        other = copy.copy(self)
        other.layers, other.norm = [*self.layers[:first], *layers], norm
        return other

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, L] ids and positions → [B, L, d]."""
        hidden = self._embed(input_ids)
        return cast(Tensor, hidden if self._rotary is not None else hidden + self._positions(position_ids))

    def run(
        self,
        hidden: Tensor,
        start: int,
        stop: int,
        position_ids: Tensor,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        *,
        checkpointing: bool = False,
    ) -> Tensor:
        """Runs layers start..stop-1.

        Args:
            hidden: [B, L, d].
            start: first layer.
            stop: one past the last layer.
            position_ids: [B, L].
            mask: [B, 1, L, L] added to attention scores, or None for plain causal attention. Sequences are padded at
                the end, so with causal attention no real token ever attends to a pad.
            cache: gives each layer the keys and values of positions that are not in hidden; the mask then spans them.
            checkpointing: keep of each layer its input alone for the backward pass, which runs the layer again.
        """
        given: dict[str, Any] = {"attention_mask": mask}
        if self._rotary is None:
            given["layer_past"] = cache
        else:
            rotary = self._rotary(hidden, position_ids)
            given |= {"position_ids": position_ids, "position_embeddings": rotary, "past_key_values": cache}
        for layer in self.layers[start:stop]:
            # Dropout is off, so the second run draws nothing.
            hidden = _recomputed(layer, hidden, given) if checkpointing else layer(hidden, **given)
            hidden = hidden[0] if self._rotary is None else hidden
        return hidden

    def keys_values(self, hidden: Tensor, index: int, position_ids: Tensor) -> Tensor:
        """What layer `index` would attend to: [B, L, d] that enter it → [2, B, H, L, h] keys and values."""
        layer = self.layers[index]
        if self._rotary is None:
            attention, normed = layer.attn.attention, layer.ln_1(hidden)
        else:
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        shape = (*hidden.shape[:2], -1, attention.head_dim)
        keys, values = attention.k_proj(normed).view(shape), attention.v_proj(normed).view(shape).transpose(1, 2)
        if hasattr(attention, "k_norm"):
            keys = attention.k_norm(keys)
        keys = keys.transpose(1, 2)
        if self._rotary is not None:
            _, keys = apply_rotary_pos_emb(keys, keys, *self._rotary(hidden, position_ids))
        return torch.stack([keys, values])

    def finish(self, hidden: Tensor) -> Tensor:
        """The final norm: [..., d] → [..., d], what the vocabulary projection reads."""
        return cast(Tensor, self.norm(hidden))


def _recomputed(layer: nn.Module, hidden: Tensor, given: dict[str, Any]) -> Any:
    return checkpoint(layer, hidden, use_reentrant=False, preserve_rng_state=False, **given)


def vocabulary_head(model: PreTrainedModel) -> nn.Linear:
    """The output projection [V, d]. Raises ValueError when the model has none, or one with a bias."""
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ValueError(f"{type(model).__name__} has no plain linear vocabulary head; use a causal language model")
    return head


@torch.no_grad()
def check_split(model: PreTrainedModel, *, tolerance: float = 1e-3) -> None:
    """Compares the forward pass in parts with the model's own on one probe.

    Raises:
        ValueError: they differ by more than tolerance (logits), so training on the parts would train another model.
    """
    stack, head = LayerStack(model), vocabulary_head(model)
    device = head.weight.device
    ids = (torch.arange(12, device=device) * 7 + 3)[None] % head.weight.shape[0]
    positions = torch.arange(12, device=device)[None]
    middle = stack.depth // 2
    hidden = stack.run(stack.embed(ids, positions), 0, middle, positions)
    ours = head(stack.finish(stack.run(hidden, middle, stack.depth, positions)))
    own = model(input_ids=ids).logits
    worst = float((ours - own).abs().max() / own.abs().max().clamp_min(1.0))
    if not worst <= tolerance:
        raise ValueError(
            f"the forward pass in parts of {model.config.model_type} differs from the model's own by {worst:.2g} "
            f"(relative; allowed {tolerance}); this model's code does more than its layers and cannot be trained yet"
        )
