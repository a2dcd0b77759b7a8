"""The reward ensemble: one frozen trunk of a language model, K members that read it and answer with a score each.

    score_k = (head_k(normalise(layers_k(closing token) ‖ mean over the response)) - mean_k) / std_k

The trunk is the model's first `trunk_layers` layers, computed once for all members. A member owns low-rank adapters on
the last `member_layers` of them and a linear head. Its layers run at one position, the EOS that closes the response,
which attends to the frozen model's keys and values; beside what they make of it, the head reads the mean of the
response's hidden states where the members begin, which is the same for all. Mean and std are of the training
responses, so that members are comparable and 0 means "as good as those".
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from rlhf.contracts.base import Contract
from rlhf.lm.exchanges import Exchange
from rlhf.lm.layers import LayerStack
from rlhf.lm.loading import LanguageModel
from rlhf.lm.readings import ReadingBatch, Readings, collate_readings, read_exchanges
from rlhf.lm.stacked_lora import adapt_layer

MEMBER_BATCH = 64
"""Exchanges that all members score in one pass: bounds the gathered keys and values."""
USUAL_DIRECTIONS = 64
"""Directions in which features are taken to vary by themselves; see `RewardEnsemble.novelty_of`."""


class EnsembleShape(Contract):
    """What the tensors of an ensemble look like, and which backbone they sit on."""

    backbone: str = Field(description="name of the language model; the bundle's probe tells whether it is the same")
    width: int = Field(ge=1, description="d of the backbone")
    trunk_layers: int = Field(ge=1, description="layers of the backbone that are used")
    member_layers: int = Field(ge=0, description="of these, the last so many carry adapters; 0: heads only")
    members: int = Field(ge=1, le=32, description="K")
    lora_r: int = Field(ge=1, le=256, description="rank of the adapters")
    lora_scale: float = Field(2.0, gt=0, description="alpha / r")
    max_length: int = Field(ge=8, description="tokens of prompt and response together")


@dataclass(frozen=True)
class Assessment:
    """What an ensemble says of N exchanges.

    Attributes:
        scores: [N, K] standardised.
        novelty: [N], see `RewardEnsemble.novelty_of`.
    """

    scores: Tensor
    novelty: Tensor


class RewardEnsemble(nn.Module):
    """K scorers on one trunk. Its parameters and buffers are the members' alone; the backbone is not in them.

    Attributes:
        shape: layers, members, rank.
        heads: [K, 2d], drawn small, so that members differ from the start; the first d read the closing token.
        bias: [K].
        feature_mean, feature_std: [2d], of the trunk's own features over the training responses.
        usual: [Q, d] orthonormal, the directions in which these features, normalised, vary most.
        usual_rest: [], root mean square of what is left of them outside these directions.
        reference_mean, reference_std: [K], of the raw scores over the training responses.
        autocast: what the layers multiply matrices in, for training on a GPU; None: the dtype of the weights. Weights,
            heads, scores and losses stay float32.
    """

    feature_mean: Tensor
    feature_std: Tensor
    usual: Tensor
    usual_rest: Tensor
    reference_mean: Tensor
    reference_std: Tensor

    def __init__(self, base: LanguageModel, shape: EnsembleShape, *, seed: int = 0) -> None:
        """Args: base, the backbone; shape; seed, of heads and adapters.

        Raises:
            ValueError: the shape does not fit the backbone; says how.
        """
        super().__init__()
        self.shape = shape
        self.autocast: torch.dtype | None = None
        self.stack = _trunk(base, shape)
        generator = torch.Generator().manual_seed(seed)
        twins, adapters = [], {}
        for index in range(self.first_member_layer, shape.trunk_layers):
            twin, own = adapt_layer(
                self.stack.layers[index],
                # The keys and values are the frozen model's, so adapters on their projections would be half used.
                [name for name in self.stack.lora_targets if name not in ("k_proj", "v_proj")],
                members=shape.members,
                r=shape.lora_r,
                scale=shape.lora_scale,
                generator=generator,
            )
            twins.append(twin)
            adapters.update({f"{index}.{path}".replace(".", "-"): adapter for path, adapter in own.items()})
        self.adapters = nn.ModuleDict(adapters)
        self._member_stack = copy.copy(self.stack)
        self._member_stack.layers = [*self.stack.layers[: self.first_member_layer], *twins]
        device = next(self.stack.layers[0].parameters()).device
        heads = 0.01 * torch.randn(shape.members, 2 * shape.width, generator=generator)
        self.heads = nn.Parameter(heads.to(device))
        self.bias = nn.Parameter(torch.zeros(shape.members, device=device))
        self.register_buffer("feature_mean", torch.zeros(2 * shape.width, device=device))
        self.register_buffer("feature_std", torch.ones(2 * shape.width, device=device))
        self.register_buffer("usual", torch.zeros(min(USUAL_DIRECTIONS, shape.width // 2), shape.width, device=device))
        self.register_buffer("usual_rest", torch.ones((), device=device))
        self.register_buffer("reference_mean", torch.zeros(shape.members, device=device))
        self.register_buffer("reference_std", torch.ones(shape.members, device=device))

    @property
    def first_member_layer(self) -> int:
        """Where the shared part ends."""
        return self.shape.trunk_layers - self.shape.member_layers

    def read(self, exchanges: Sequence[Exchange], **how: object) -> Readings:
        """The shared part. Args: as `read_exchanges`."""
        first, stop = self.first_member_layer, self.shape.trunk_layers
        with self._precision():
            return read_exchanges(self.stack, exchanges, first=first, stop=stop, **how)  # type: ignore[arg-type]

    def features(self, batch: ReadingBatch) -> Tensor:
        """[K·B, 2d] float32, after the members' layers and of the mean; the batch is member-major."""
        return self._run(self._member_stack, batch)

    def _run(self, stack: LayerStack, batch: ReadingBatch) -> Tensor:
        first, stop = self.first_member_layer, self.shape.trunk_layers
        past = _Replay(batch.keys_values, first)
        with self._precision():
            hidden = stack.run(batch.closing, first, stop, batch.positions, batch.mask, past)
        return torch.cat([hidden[:, 0].float(), batch.mean.float()], dim=1)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.heads.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def raw_scores(self, batch: ReadingBatch) -> Tensor:
        """[K, B] float32, not standardised, from a member-major batch of K·B readings."""
        normal = self._normalise(self.features(batch))
        return (
            torch.einsum("kbd,kd->kb", normal.view(self.shape.members, -1, normal.shape[-1]), self.heads)
            + (self.bias[:, None])
        )

    @torch.no_grad()
    def raw_scores_of(self, readings: Readings, indices: Tensor | None = None) -> Tensor:
        """[K, N] raw scores of all readings, or of those at `indices`, every member scoring each."""
        every = torch.arange(len(readings.closing)) if indices is None else indices
        parts = [
            self.raw_scores(collate_readings(readings, part).repeat(self.shape.members))
            for part in torch.split(every, MEMBER_BATCH)
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def fit_features(self, readings: Readings, indices: Tensor) -> Tensor:
        """Sets what is known of the frozen model's own features from exchanges `indices`; returns `frozen_features`."""
        every = self._unadapted(readings, torch.arange(len(readings.closing)))
        features = every[indices]
        std = features.std(0, correction=0)
        self.feature_mean.copy_(features.mean(0))
        # A feature that hardly varies here may vary elsewhere; dividing by almost nothing would let it decide alone.
        self.feature_std.copy_(std.clamp_min(0.01 * float(std.mean()) + 1e-6))
        normal = self._normalise(features)[:, : self.shape.width]
        _, directions = torch.linalg.eigh(normal.T @ normal)  # by rising eigenvalue
        self.usual.copy_(directions.T.flip(0)[: len(self.usual)])
        self.usual_rest.copy_(self._rest(normal).square().mean().sqrt().clamp_min(1e-6))
        return self._normalise(every)

    @torch.no_grad()
    def novelty_of(self, readings: Readings, indices: Tensor | None = None) -> Tensor:
        """[N] how far features lie outside the training responses' own directions; 1 is usual among those.

        The residual of a principal subspace (2203.10807, eq. 4), of what the frozen layers make of the closing token.
        Members cannot tell this by disagreeing: they all read the same features, and learned from the same responses.
        """
        return self._rest(self.frozen_features(readings, indices)[:, : self.shape.width]) / self.usual_rest

    @torch.no_grad()
    def frozen_features(self, readings: Readings, indices: Tensor | None = None) -> Tensor:
        """[N, 2d] what heads beside no adapters read, normalised. Args: indices, of readings; None: all."""
        every = torch.arange(len(readings.closing)) if indices is None else indices
        return self._normalise(self._unadapted(readings, every))

    def _unadapted(self, readings: Readings, indices: Tensor) -> Tensor:
        parts = [self._run(self.stack, collate_readings(readings, part)) for part in torch.split(indices, MEMBER_BATCH)]
        return torch.cat(parts)

    def _normalise(self, features: Tensor) -> Tensor:
        return (features - self.feature_mean) / self.feature_std

    def _rest(self, normal: Tensor) -> Tensor:
        rest: Tensor = torch.linalg.vector_norm(normal - normal @ self.usual.T @ self.usual, dim=-1)
        return rest

    def fit_reference(self, raw: Tensor) -> None:
        """Sets reference_mean and reference_std from raw scores, [K, N]."""
        self.reference_mean.copy_(raw.mean(1))
        self.reference_std.copy_(raw.std(1, correction=0).clamp_min(1e-6))

    def standardise(self, raw: Tensor) -> Tensor:
        """[K, ...] raw scores in units of the reference's spread around the reference's mean."""
        shape = (-1, *([1] * (raw.dim() - 1)))
        return (raw - self.reference_mean.view(shape)) / self.reference_std.view(shape)

    def score(self, exchanges: Sequence[Exchange], *, token_budget: int) -> Tensor:
        """[N, K] standardised scores. Args: exchanges, at least one; token_budget, padded tokens of a forward pass."""
        return self.assess(exchanges, token_budget=token_budget).scores

    @torch.no_grad()
    def assess(self, exchanges: Sequence[Exchange], *, token_budget: int) -> Assessment:
        """Scores, and how unlike the training responses each is. Args: as `score`."""
        readings = self.read(exchanges, token_budget=token_budget)
        return Assessment(self.standardise(self.raw_scores_of(readings)).T, self.novelty_of(readings))


class _Replay:
    """Gives member layers the frozen model's keys and values, followed by the closing token's own."""

    def __init__(self, keys_values: Tensor, first: int) -> None:
        """Args: keys_values, [M, 2, B, H, T, h]; first, index of the layer that M = 0 stands for."""
        self._keys_values, self._first = keys_values, first

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        past_keys, past_values = self._keys_values[layer - self._first]
        return torch.cat([past_keys, keys], dim=2), torch.cat([past_values, values], dim=2)


def _trunk(base: LanguageModel, shape: EnsembleShape) -> LayerStack:
    stack = LayerStack(base.model)
    if shape.width != stack.width:
        raise ValueError(
            f"the ensemble was made for width {shape.width} ({shape.backbone}), {base.name} has {stack.width}; "
            "serve it on the backbone that it was trained on"
        )
    if shape.trunk_layers > stack.depth:
        raise ValueError(
            f"trunk_layers={shape.trunk_layers} exceeds the {stack.depth} layers of {base.name}; lower it to that"
        )
    if shape.member_layers > shape.trunk_layers:
        raise ValueError(
            f"member_layers={shape.member_layers} exceeds trunk_layers={shape.trunk_layers}; lower it to that or less"
        )
    if shape.max_length > base.max_positions:
        raise ValueError(
            f"max_length={shape.max_length} exceeds the {base.max_positions} positions of {base.name}; lower it"
        )
    return stack
