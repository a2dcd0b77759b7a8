"""Full fine-tuning's versions in the artifact store: the tensors that differ from the base model's, under its names.

They stand among the adapters, as `job@version`, since they are served alike; those of LoRA are in PEFT's format.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "replaced.safetensors"
CONFIG = "replaced.json"


def replaces_weights(folder: Path) -> bool:
    """Whether an adapter's folder holds whole tensors in place of LoRA's factors."""
    return (folder / WEIGHTS).is_file()
