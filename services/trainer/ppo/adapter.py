"""What LoRA trains: low-rank factors on the base model's linear layers. The reference is the model without them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from rlhf.contracts.jobs import LoraConfig
from rlhf.lm.layers import LayerStack
from rlhf.lm.loading import LanguageModel
from services.trainer.ppo.parallel import whole_by_name


class LoraWeights(nn.Module):
    """A fresh adapter on a base model. See `actor.Trained`."""

    def __init__(self, base: LanguageModel, lora: LoraConfig, first_layer: int, seed: int) -> None:
        """Args: base, frozen; lora, rank, scale and modules; first_layer, that is adapted; seed, of its start."""
        super().__init__()
        self._stack = LayerStack(base.model)
        self.peft_model = _attach_adapter(base, lora, first_layer, seed)

    def trainable(self) -> dict[str, nn.Parameter]:
        """See Trained."""
        return {f"adapter.{n}": p for n, p in self.peft_model.named_parameters() if p.requires_grad}

    @contextmanager
    def running(self, *, reference: bool) -> Iterator[LayerStack]:
        """See Trained."""
        with self.peft_model.disable_adapter() if reference else nullcontext():
            yield self._stack

    def blocks(self) -> list[nn.Module]:
        """See Trained."""
        return list(self._stack.layers)

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """See Trained."""
        trained = {n: p for n, p in self.peft_model.named_parameters() if p.requires_grad}
        return whole_by_name(trained, keep=keep)

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes PEFT's format."""
        self.peft_model.save_pretrained(str(folder), state_dict=dict(weights), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        # peft writes a set in the order of its hashes, another one in every process; an artifact has one content.
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"target_modules": sorted(config["target_modules"])}, indent=2))

    def detach(self) -> None:
        """See Trained."""
        self.peft_model.unload()


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
