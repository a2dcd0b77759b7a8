"""LoRA adapters made by peft, as the learner publishes them."""

import warnings
from pathlib import Path

import peft
import torch

from rlhf.artifacts.folders import MANIFEST, write_manifest
from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import load_language_model


def write_adapter(source: Path, folder: Path, *, seed: int = 1, size: float = 0.3, **settings: object) -> None:
    """Saves a random adapter of the model in `source`."""
    model = load_language_model(str(source)).model
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj", "v_proj"], **settings})
    with warnings.catch_warnings():
        # peft 0.21 reads an attribute that transformers 5 renamed.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        adapted = peft.get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(str(folder), save_embedding_layers=False)


def publish(store: ArtifactStore, source: Path, name: str, version: int, **settings: object) -> str:
    return store.publish("adapters", name, version, lambda folder: write_adapter(source, folder, **settings))


def peft_logits(source: Path, folder: Path, ids: list[int]) -> torch.Tensor:
    """[V] logits after the ids, by peft itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        model = peft.PeftModel.from_pretrained(load_language_model(str(source)).model, str(folder))
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1]


def republish(folder: Path) -> None:
    """Makes a changed artifact valid again as far as its checksums go."""
    (folder / MANIFEST).unlink()
    write_manifest(folder)
