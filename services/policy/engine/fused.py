"""The decoder layout of Llama, Mistral and Qwen, computed with few large operations. See forward.py for its use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from rlhf.lm.layers import ROTARY_FAMILIES
from services.policy.engine.cache import LayerShape, SlotCache
from services.policy.engine.linears import ExchangeableLinear, LinearFactory, release_file


@dataclass(frozen=True)
class FusedLayer:
    """The weights of one decoder layer; norms are [d], those of query and key [D] or None."""

    input_norm: Tensor
    qkv: ExchangeableLinear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: ExchangeableLinear
    mlp_norm: Tensor
    gate_up: ExchangeableLinear
    down: ExchangeableLinear


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether this model has exactly the layout that FusedForward computes."""
    config = model.config
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or [])
    return (
        config.model_type in ROTARY_FAMILIES
        and config.hidden_act == "silu"
        and not windows
        and (config.model_type != "mistral" or getattr(config, "sliding_window", None) is None)
        and type(model.get_output_embeddings()) is nn.Linear
        and all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))
    )


class FusedForward:
    """B rows, T new tokens, d hidden units, H key heads of size D with G query heads each."""

    def __init__(self, model: PreTrainedModel, shapes: list[LayerShape], factory: LinearFactory) -> None:
        """Takes over the weights: the model's own layers are emptied, so that nothing is in memory twice.

        Args:
            model: one that `can_fuse`.
            shapes: of its layers' caches.
            factory: makes the linear layers.
        """
        decoder, config = model.model, model.config
        self.shapes = shapes
        self._heads, self._size = shapes[0].heads, shapes[0].key_size
        self._groups = int(config.num_attention_heads) // self._heads
        self._scale = float(decoder.layers[0].self_attn.scaling)
        self._epsilon = float(config.rms_norm_eps)
        self._root_epsilon = torch.tensor(self._epsilon**0.5)
        self._rotary = decoder.rotary_emb
        self._layers = [_take_over(layer, factory) for layer in decoder.layers]
        self._head = factory.join(model.get_output_embeddings())
        model.lm_head = None
        release_file(model)
        self._embedding, self._norm = decoder.embed_tokens.weight, decoder.norm.weight

    def last(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """See Forward."""
        return self._head(self._norms(self._hidden(ids, mask, positions, cache)[:, -1], self._norm)).float()

    def every(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """See Forward."""
        return self._head(self._norms(self._hidden(ids, mask, positions, cache), self._norm)).float()

    def _hidden(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """[B, T, d] after the last layer, not normed."""
        hidden = F.embedding(ids, self._embedding)
        cos, sin = (part[:, :, None] for part in self._rotary(hidden, positions))
        # rotate(x) = [-x2, x1]: the halves swapped, times the sine with its first half negated.
        half = self._size // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        bias = attention_bias(mask, ids.shape[1], hidden.dtype)
        # One new token for each of several rows, on a CPU: plain products read keys and values fastest.
        flat = None
        if len(ids) > 1 and ids.shape[1] == 1 and bias.device.type == "cpu":
            flat = bias.expand(-1, self._heads, -1, -1).flatten(0, 1)
        for index, layer in enumerate(self._layers):
            attended = self._attend(layer, self._norms(hidden, layer.input_norm), cos, sin, bias, flat, index, cache)
            hidden = hidden.add_(layer.output(attended))
            gate, up = layer.gate_up(self._norms(hidden, layer.mlp_norm)).chunk(2, -1)
            hidden = hidden.add_(layer.down(F.silu(gate).mul_(up)))
        return hidden

    def _norms(self, x: Tensor, weight: Tensor) -> Tensor:
        """Root mean square norm over the last dimension: x / √(mean x² + ε) · weight."""
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return F.rms_norm(x, (x.shape[-1],), weight, self._epsilon)
        # torch has no kernel for it on CPUs; this takes half as many passes as its own composition.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).div_(x.shape[-1] ** 0.5)
        return x.div(length.hypot_(self._root_epsilon)).mul_(weight)

    def _attend(
        self,
        layer: FusedLayer,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor,
        flat: Tensor | None,
        index: int,
        cache: SlotCache,
    ) -> Tensor:
        """[B, T, d] normed → [B, T, H·G·D] attended."""
        rows, columns, _ = x.shape
        heads, groups, size = self._heads, self._groups, self._size
        states = layer.qkv(x).view(rows, columns, heads * (groups + 2), size)
        turned, values = states.split_with_sizes([heads * (groups + 1), heads], 2)
        if layer.query_norm is not None and layer.key_norm is not None:
            queries, keys = turned.split_with_sizes([heads * groups, heads], 2)
            turned = torch.cat([self._norms(queries, layer.query_norm), self._norms(keys, layer.key_norm)], 2)
        first, second = turned.chunk(2, -1)
        turned = torch.addcmul(turned * cos, torch.cat([second, first], -1), sin)
        queries, keys = turned.split_with_sizes([heads * groups, heads], 2)
        all_keys, all_values = cache.layers[index].update(keys.transpose(1, 2), values.transpose(1, 2))
        if flat is not None:
            # The G queries of a key head are so many rows of one product.
            grouped = queries.reshape(rows * heads, groups, size)
            scores = torch.baddbmm(flat, grouped, all_keys.flatten(0, 1).transpose(1, 2), alpha=self._scale)
            return torch.bmm(scores.softmax(-1), all_values.flatten(0, 1)).view(rows, 1, -1)
        out = F.scaled_dot_product_attention(
            queries.transpose(1, 2), all_keys, all_values, attn_mask=bias, scale=self._scale, enable_gqa=True
        )
        return out.transpose(1, 2).reshape(rows, columns, -1)


def attention_bias(mask: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores.

    Args:
        mask: [B, L] bool, what each row may see of all columns; the last `columns` are new.
        columns: T.
        dtype: of the scores.

    Returns:
        [B, 1, T, L]: 0 where query t may see the column, else the lowest finite number, since a row of pads that sees
        nothing must not become NaN.
    """
    length = mask.shape[1]
    seen = mask[:, None, None, :]
    if columns > 1:
        seen = seen & mask.new_ones(columns, length).tril(length - columns)
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _take_over(layer: nn.Module, factory: LinearFactory) -> FusedLayer:
    attention, mlp = cast(nn.Module, layer.self_attn), cast(nn.Module, layer.mlp)

    def weight(owner: nn.Module, name: str) -> Tensor:
        return cast(Tensor, getattr(owner, name).weight)

    def taken(owner: nn.Module, *names: str) -> ExchangeableLinear:
        joined = factory.join(*(cast(nn.Linear, getattr(owner, name)) for name in names))
        for name in names:
            setattr(owner, name, None)
        return joined

    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    query_norm, key_norm = (None if norm is None else cast(Tensor, norm.weight) for norm in norms)
    return FusedLayer(
        input_norm=weight(layer, "input_layernorm"),
        qkv=taken(attention, "q_proj", "k_proj", "v_proj"),
        query_norm=query_norm,
        key_norm=key_norm,
        output=taken(attention, "o_proj"),
        mlp_norm=weight(layer, "post_attention_layernorm"),
        gate_up=taken(mlp, "gate_proj", "up_proj"),
        down=taken(mlp, "down_proj"),
    )
