"""What full fine-tuning trains: copies of the base model's upper layers and final norm. Not its embeddings or head.

The base model is never written to. Its own layers are the reference, so that the policy's copies are all that a frozen
reference costs, and giving it back takes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlhf.artifacts.replaced import CONFIG, WEIGHTS
from rlhf.lm.layers import LayerStack
from rlhf.lm.loading import LanguageModel
from services.trainer.ppo.parallel import whole_by_name


class FullWeights(nn.Module):
    """Trainable copies of the upper layers. See `actor.Trained`.

    Copies are float32 whatever the base model is: a step of 1e-5 is lost in bfloat16, whose neighbours of 1 are 0.004
    apart. With a bfloat16 base they are computed in bfloat16 as the base model's layers are (autocast).

    Attributes:
        base: what they are copies of.
    """

    def __init__(self, base: LanguageModel, first_layer: int) -> None:
        """Copies the layers.

        Args:
            base: frozen.
            first_layer: the lowest that is trained.

        Raises:
            ValueError: the base model is in float16.
        """
        super().__init__()
        self.base, self._dtype = base, base.model.dtype
        if self._dtype == torch.float16:
            raise ValueError(
                f"full fine-tuning of {base.name} cannot compute in float16, where small gradients become 0; set "
                "RLHF_DTYPE to bfloat16 or float32, or train an adapter (lora)"
            )
        # A part of this module, so that several processes share its weights too; trainable() has none of them.
        self._model = base.model
        self._reference = LayerStack(base.model)
        originals = [*self._reference.layers[first_layer:], self._reference.norm]
        # The config stays one object, as in the model.
        config = base.model.config
        self._copies = nn.ModuleList(copy.deepcopy(module, {id(config): config}).float() for module in originals)
        self._copies.requires_grad_(True)
        self._policy = self._reference.with_upper(first_layer, list(self._copies[:-1]), self._copies[-1])
        names = {id(module): name for name, module in base.model.named_modules()}
        self._names = [names[id(module)] for module in originals]

    def trainable(self) -> dict[str, nn.Parameter]:
        """See Trained."""
        return {f"weights.{name}": parameter for name, parameter in self.replaced().items()}

    def replaced(self) -> dict[str, nn.Parameter]:
        """The trained parameters by their names in the base model."""
        return {
            f"{name}.{part}": parameter
            for name, module in zip(self._names, self._copies, strict=True)
            for part, parameter in module.named_parameters()
        }

    @contextmanager
    def running(self, *, reference: bool) -> Iterator[LayerStack]:
        """See Trained."""
        mixed = self._dtype != torch.float32 and not reference
        with torch.autocast(self.base.model.device.type, dtype=torch.bfloat16, enabled=mixed):
            yield self._reference if reference else self._policy

    def blocks(self) -> list[nn.Module]:
        """See Trained."""
        return [*self._reference.layers, *self._copies[:-1]]

    def weights(self, *, keep: bool = True) -> dict[str, Tensor]:
        """See Trained. In the base model's type, which servers compute with."""
        rounded = {name: parameter.detach().to(self._dtype) for name, parameter in self.replaced().items()}
        return whole_by_name(rounded, keep=keep)

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes the trained tensors alone."""
        save_file(dict(weights), folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps({"base_model_name_or_path": self.base.name}, indent=2))

    def untouched(self, *, keep: bool = True) -> dict[str, Tensor]:
        """What the model has beside `weights`, whole, tied tensors once. Args: keep, as there."""
        model, trained = self.base.model, self.replaced()
        tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(
            model.named_parameters()
        ).keys()
        rest = {name: t for name, t in model.state_dict().items() if name not in trained and name not in tied}
        return whole_by_name(rest, keep=keep)

    def save_model(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Writes the model with its tokenizer as an ordinary Hugging Face folder, in the base model's type.

        Args:
            folder: is made.
            tensors: as `weights` and `untouched` gave them.
        """
        self.base.model.save_pretrained(folder, state_dict=dict(tensors))
        self.base.tokenizer.save_pretrained(str(folder))

    def detach(self) -> None:
        """Nothing to undo: the base model was only read."""
