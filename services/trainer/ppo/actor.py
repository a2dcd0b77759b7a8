"""The trained model: one trunk for policy, reference and value. Not the optimiser, not the loop.

The policy is the base model with a LoRA adapter, the reference the same model with the adapter disabled, the value
function a linear head on the policy's last hidden state, initialised to zero.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from rlhf.contracts.jobs import LoraConfig
from rlhf.lm.layers import LayerStack, check_split, vocabulary_head
from rlhf.lm.loading import LanguageModel
from rlhf.lm.logprobs import token_logprobs
from services.trainer.ppo.collate import Row, pad_rows
from services.trainer.ppo.parallel import whole_by_name


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


class Actor(nn.Module):
    """Policy, reference and value function on one set of base weights."""

    def __init__(self, base: LanguageModel, lora: LoraConfig, *, temperature: float, seed: int) -> None:
        """Attaches a fresh adapter to the base model.

        Args:
            base: dropout off, frozen.
            lora: rank, scale, which modules of how many upper layers.
            temperature: τ of the rollouts; every log-probability divides its logits by it.
            seed: of the adapter's initialisation.

        Raises:
            ValueError: the family is unsupported, or top_layers exceeds the model's depth.
        """
        super().__init__()
        check_split(base.model)
        depth = LayerStack(base.model).depth
        top = depth if lora.top_layers is None else lora.top_layers
        if top > depth:
            raise ValueError(
                f"lora.top_layers={top} exceeds the {depth} layers of {base.name}; lower it to {depth} or less"
            )
        self.first_adapted = depth - top
        self.temperature = temperature
        self.peft_model = _attach_adapter(base, lora, self.first_adapted, seed)
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
        """Adapter and value head by name, in a fixed order."""
        named = {f"adapter.{n}": p for n, p in self.peft_model.named_parameters() if p.requires_grad}
        return {**named, **{f"value_head.{n}": p for n, p in self.value_head.named_parameters()}}

    @torch.no_grad()
    def lower_features(self, rows: Sequence[Row]) -> list[Tensor]:
        """Output of the frozen lower layers for each row: [L_row, d], computed once a step."""
        packed = pad_rows(rows)
        positions, mask = packed.position_ids.to(self.device), self._mask(packed.mask)
        hidden = self.stack.embed(packed.input_ids.to(self.device), positions)
        hidden = self.stack.run(hidden, 0, self.first_adapted, positions, mask)
        return [hidden[i, : row.length] for i, row in enumerate(rows)]

    def filler_features(self) -> list[Tensor]:
        """In place of the lower features of `parallel.FILLER`."""
        return [torch.zeros((1, self.stack.width), device=self.device, dtype=self.dtype)]

    def forward(
        self, rows: Sequence[Row], features: Sequence[Tensor], targets: Tensor, *, reference: bool = False
    ) -> TokenOutputs:
        """Runs the upper layers on rows.

        Args:
            rows: which rows.
            features: their lower features.
            targets: [B, T] response ids of the whole rollout.
            reference: with the adapter disabled.
        """
        packed = pad_rows(rows)
        positions = packed.position_ids.to(self.device)
        hidden = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
        with self.peft_model.disable_adapter() if reference else nullcontext():
            hidden = self.stack.run(hidden, self.first_adapted, self.stack.depth, positions, self._mask(packed.mask))
        # Only positions that predict a response token go through the norm and the vocabulary.
        hidden = self.stack.finish(hidden.flatten(0, 1)[packed.source.to(self.device)])
        wanted = targets[packed.sample, packed.offset].to(self.device)
        logprobs, entropy = token_logprobs(hidden, self.head.weight, wanted, self.temperature)
        # A copy: FSDP2 must not be given a view.
        values = self.value_head(hidden.float())[:, 0].clone()
        return TokenOutputs(logprobs, entropy, values, packed.sample, packed.offset)

    def adapter_weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The adapter's whole weights by name. Args: keep, False: only help other processes to gather theirs."""
        trained = {n: p for n, p in self.peft_model.named_parameters() if p.requires_grad}
        return whole_by_name(trained, keep=keep)

    def save_adapter(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Writes the adapter in PEFT's format, which policy servers load. Args: weights, as adapter_weights gave."""
        state = dict(self.adapter_weights() if weights is None else weights)
        self.peft_model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        # peft writes a set in the order of its hashes, another one in every process; an artifact has one content.
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"target_modules": sorted(config["target_modules"])}, indent=2))

    def detach(self) -> None:
        """Takes the adapter off the base model again, which other jobs of the process go on using."""
        self.peft_model.unload()

    def _mask(self, mask: Tensor | None) -> Tensor | None:
        return None if mask is None else mask.to(self.device, self.dtype)


def _attach_adapter(base: LanguageModel, lora: LoraConfig, first_layer: int, seed: int) -> peft.PeftModel:
    stack = LayerStack(base.model)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=stack.lora_targets if lora.modules == "all" else stack.attention,
        layers_to_transform=list(range(first_layer, stack.depth)),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 reads an attribute that transformers 5 renamed; it concerns neither users nor the result.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        torch.manual_seed(seed)
        model = peft.get_peft_model(base.model, config)
    # A path of this machine would mean nothing to whoever loads the adapter elsewhere.
    config.base_model_name_or_path = base.name
    return model
