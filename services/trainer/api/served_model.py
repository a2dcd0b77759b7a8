"""The model that the services serve, as far as this process can see it: its config.json, never its weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from services.trainer.estimate.shape import ModelShape, read_shape
from services.trainer.settings import ApiSettings


@dataclass(frozen=True)
class Model:
    """Attributes: name, as the learner calls it: the folder's or the Hub id; shape."""

    name: str
    shape: ModelShape


@dataclass(frozen=True)
class Unknown:
    """Attributes: why, for the user."""

    why: str


def find_model(settings: ApiSettings) -> Model | Unknown:
    """Reads the model's shape from RLHF_MODEL: a folder, or a Hub id that was downloaded to a folder seen from here."""
    if settings.model is None:
        return Unknown("RLHF_MODEL is not set for the job API; set it as for the learner")
    folder = Path(settings.model)
    name = folder.name
    if not folder.is_dir():
        folder, name = _hub_folder(settings.model), settings.model
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return Model(name, read_shape(config))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Unknown(f"{folder / 'config.json'} of RLHF_MODEL={settings.model} cannot be read here: {reason}")
    except (ValueError, AttributeError) as error:
        return Unknown(f"RLHF_MODEL={settings.model}: {error}")


def _hub_folder(model: str) -> Path:
    """Where huggingface_hub, which this process does not have, puts the model's newest revision."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    repository = home / "hub" / f"models--{model.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except OSError:
        return repository
    return repository / "snapshots" / revision
