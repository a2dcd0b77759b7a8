"""The shape of a decoder, read from the content of its config.json without transformers. Counts, no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ROTARY_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""As `rlhf.lm.layers` has them, which imports torch; a test compares the two."""
_KEY_VALUE_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
"""What the families' own configs take where config.json does not say; Llama takes the number of heads."""


@dataclass(frozen=True)
class Linear:
    """A linear module of a layer: name, sizes, whether it has a bias."""

    name: str
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        """Without the bias."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """With the bias."""
        return self.weights + self.outputs * self.bias


@dataclass(frozen=True)
class ModelShape:
    """A decoder of a family that can be trained.

    Attributes:
        family: model_type of its config.
        layers: how many.
        width: d, of the hidden state.
        heads: of the queries.
        key_value_heads: of keys and values.
        head_size: h.
        inner: m, of the MLP.
        vocabulary: V.
        positions: most tokens of a sequence.
        tied: the vocabulary head is the embedding.
        attention: linear modules of a layer's attention: queries, keys, values, output.
        mlp: linear modules of a layer's MLP.
        norms: parameters of a layer's norms.
    """

    family: str
    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_size: int
    inner: int
    vocabulary: int
    positions: int
    tied: bool
    attention: tuple[Linear, ...]
    mlp: tuple[Linear, ...]
    norms: int

    @property
    def packs(self) -> bool:
        """Whether the learner lays a prompt's samples into one row: not with local attention windows."""
        return self.family != "gpt_neo"

    @property
    def query_width(self) -> int:
        """Of all heads of the queries together."""
        return self.heads * self.head_size

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Of a layer."""
        return self.attention + self.mlp

    @property
    def layer_weights(self) -> int:
        """Of a layer's linear modules, without biases: a token is multiplied with each once."""
        return sum(linear.weights for linear in self.linears)

    @property
    def layer_parameters(self) -> int:
        """Of a layer."""
        return sum(linear.parameters for linear in self.linears) + self.norms

    @property
    def parameters(self) -> int:
        """All of them, a tied head once."""
        embeddings = self.vocabulary * self.width * (1 if self.tied else 2)
        if self.family == "gpt_neo":
            embeddings += self.positions * self.width
        return embeddings + self.layers * self.layer_parameters + self.final_norm

    @property
    def final_norm(self) -> int:
        """Parameters of the norm after the last layer: GPT-Neo's has a bias."""
        return self.width * (2 if self.family == "gpt_neo" else 1)

    @property
    def mask_bytes(self) -> int:
        """Causal masks that GPT-Neo keeps, one byte a pair of positions, in every layer."""
        return self.layers * self.positions**2 if self.family == "gpt_neo" else 0


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that the content of a config.json describes.

    Raises:
        ValueError: the family cannot be trained, or a size is missing or no number; says which.
    """
    family = str(config.get("model_type"))
    if family == "gpt_neo":
        return _gpt_neo(config)
    if family in ROTARY_FAMILIES:
        return _rotary(family, config)
    known = ", ".join(sorted(ROTARY_FAMILIES | {"gpt_neo"}))
    raise ValueError(f"models of family {family!r} cannot be trained yet; those that can: {known}")


def _rotary(family: str, config: Mapping[str, Any]) -> ModelShape:
    width, heads, inner = (_size(config, k) for k in ("hidden_size", "num_attention_heads", "intermediate_size"))
    head_size = _size(config, "head_dim", 128 if family == "qwen3" else width // heads)
    groups = _size(config, "num_key_value_heads", _KEY_VALUE_HEADS.get(family, heads))
    queries, keys = heads * head_size, groups * head_size
    asked = bool(config.get("attention_bias", False)) and family in ("llama", "qwen3")
    bias, mlp_bias = asked or family == "qwen2", family == "llama" and bool(config.get("mlp_bias", False))
    return ModelShape(
        family=family,
        layers=_size(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_value_heads=groups,
        head_size=head_size,
        inner=inner,
        vocabulary=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings", 2048),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention=(
            Linear("q_proj", width, queries, bias),
            Linear("k_proj", width, keys, bias),
            Linear("v_proj", width, keys, bias),
            Linear("o_proj", queries, width, asked),
        ),
        mlp=(
            Linear("gate_proj", width, inner, mlp_bias),
            Linear("up_proj", width, inner, mlp_bias),
            Linear("down_proj", inner, width, mlp_bias),
        ),
        norms=2 * width + (2 * head_size if family == "qwen3" else 0),
    )


def _gpt_neo(config: Mapping[str, Any]) -> ModelShape:
    width, heads = _size(config, "hidden_size"), _size(config, "num_heads")
    inner = _size(config, "intermediate_size", 4 * width)
    return ModelShape(
        family="gpt_neo",
        layers=_size(config, "num_layers"),
        width=width,
        heads=heads,
        key_value_heads=heads,
        head_size=width // heads,
        inner=inner,
        vocabulary=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings", 2048),
        tied=bool(config.get("tie_word_embeddings", True)),
        attention=(
            *(Linear(name, width, width, False) for name in ("q_proj", "k_proj", "v_proj")),
            Linear("out_proj", width, width, True),
        ),
        mlp=(Linear("c_fc", width, inner, True), Linear("c_proj", inner, width, True)),
        norms=4 * width,
    )


def _size(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"config.json has {key}={value!r}; it must be a number of 1 or more")
    return value
