"""The trained model: one trunk for policy, reference and value. Not the optimiser, not the loop.

The policy is the base model with what is trained in its upper layers: a LoRA adapter, or weights of their own. The
reference is the model without it, the value function a linear head on the policy's last hidden state, initialised to
zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from rlhf.contracts.jobs import FullConfig, LoraConfig
from rlhf.lm.layers import LayerStack, check_split, vocabulary_head
from rlhf.lm.loading import LanguageModel
from rlhf.lm.logprobs import token_logprobs
from services.trainer.ppo.adapter import LoraWeights
from services.trainer.ppo.collate import Row, pad_rows
from services.trainer.ppo.full import FullWeights


@dataclass(frozen=True)
class TokenOutputs:
    """Per response token of some rows, all [N], in the rows' order.

    Attributes:
        logprobs: under the model that ran, at the rollout's temperature.
        entropy: nats, without gradient.
        values: V of the state before the token.
        sample: index into the rollout's batch.
        offset: index of the token in its response.
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor
    sample: Tensor
    offset: Tensor


class Trained(Protocol):
    """What learns beside the value head, and the layers that compute with it or without it."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """By name, in a fixed order."""

    def running(self, *, reference: bool) -> AbstractContextManager[LayerStack]:
        """The layers of the policy, or of the reference, to be run within the context."""

    def blocks(self) -> list[nn.Module]:
        """The layers, trained and frozen, each of which several processes gather as a whole when it computes."""

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """What a version holds, whole. Args: keep, False: only help other processes to gather theirs."""

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes what policy servers load as one version. Args: weights, as `weights` gave them."""

    def detach(self) -> None:
        """Gives the base model back as it was, which other jobs of the process go on using."""


class Actor(nn.Module):
    """Policy, reference and value function on one set of base weights."""

    def __init__(self, base: LanguageModel, trained: LoraConfig | FullConfig, *, temperature: float, seed: int) -> None:
        """Adds to the base model what is trained.

        Args:
            base: dropout off, frozen.
            trained: an adapter, or weights, of how many upper layers.
            temperature: τ of the rollouts; every log-probability divides its logits by it.
            seed: of an adapter's initialisation.

        Raises:
            ValueError: the family or the type of its weights is unsupported, or top_layers exceeds the model's depth.
        """
        super().__init__()
        check_split(base.model)
        depth = LayerStack(base.model).depth
        top = depth if trained.top_layers is None else trained.top_layers
        if top > depth:
            group = "full" if isinstance(trained, FullConfig) else "lora"
            raise ValueError(
                f"{group}.top_layers={top} exceeds the {depth} layers of {base.name}; lower it to {depth} or less"
            )
        self.first_trained = depth - top
        self.temperature = temperature
        self.trained: Trained = (
            FullWeights(base, self.first_trained)
            if isinstance(trained, FullConfig)
            else LoraWeights(base, trained, self.first_trained, seed)
        )
        self.stack = LayerStack(base.model)
        self.head = vocabulary_head(base.model)
        self.value_head = nn.Linear(self.stack.width, 1, device=self.head.weight.device, dtype=torch.float32)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the base weights."""
        return self.head.weight.dtype

    def trainable(self) -> dict[str, nn.Parameter]:
        """All that learns by name, in a fixed order."""
        return {**self.trained.trainable(), **{f"value_head.{n}": p for n, p in self.value_head.named_parameters()}}

    @torch.no_grad()
    def lower_features(self, rows: Sequence[Row]) -> list[Tensor]:
        """Output of the frozen lower layers for each row: [L_row, d], computed once a step."""
        packed = pad_rows(rows)
        positions, mask = packed.position_ids.to(self.device), self._mask(packed.mask)
        hidden = self.stack.embed(packed.input_ids.to(self.device), positions)
        hidden = self.stack.run(hidden, 0, self.first_trained, positions, mask)
        return [hidden[i, : row.length] for i, row in enumerate(rows)]

    def filler_features(self) -> list[Tensor]:
        """In place of the lower features of `parallel.FILLER`."""
        return [torch.zeros((1, self.stack.width), device=self.device, dtype=self.dtype)]

    def forward(
        self,
        rows: Sequence[Row],
        features: Sequence[Tensor],
        targets: Tensor,
        *,
        reference: bool = False,
        checkpointing: bool = False,
    ) -> TokenOutputs:
        """Runs the upper layers on rows.

        Args:
            rows: which rows.
            features: their lower features.
            targets: [B, T] response ids of the whole rollout.
            reference: without what is trained.
            checkpointing: the backward pass computes each layer again.
        """
        packed = pad_rows(rows)
        positions = packed.position_ids.to(self.device)
        hidden = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        with self.trained.running(reference=reference) as stack:
            hidden = stack.run(
                hidden,
                self.first_trained,
                stack.depth,
                positions,
                self._mask(packed.mask),
                checkpointing=checkpointing,
            )
            # Only positions that predict a response token go through the norm and the vocabulary.
            hidden = stack.finish(hidden.flatten(0, 1)[packed.source.to(self.device)]).to(self.dtype)
        wanted = targets[packed.sample, packed.offset].to(self.device)
        logprobs, entropy = token_logprobs(hidden, self.head.weight, wanted, self.temperature)
        # A copy: FSDP2 must not be given a view.
        values = self.value_head(hidden.float())[:, 0].clone()
        return TokenOutputs(logprobs, entropy, values, packed.sample, packed.offset)

    def detach(self) -> None:
        """Gives the base model back as it was, which other jobs of the process go on using."""
        self.trained.detach()

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        return None if mask is None else mask.to(self.device, self.dtype)
