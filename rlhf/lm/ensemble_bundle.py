"""A reward ensemble on disk: `config.json` and `ensemble.safetensors`, without the backbone. Checked twice.

The store checks the bytes; loading checks that names, shapes and values are those of an ensemble, and then that it
scores a fixed sample here as it did where it was trained: another backbone, tokenizer or chat template shows at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from rlhf.contracts.base import Contract
from rlhf.contracts.errors import Conflict
from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble
from rlhf.lm.exchanges import encode_exchange
from rlhf.lm.loading import LanguageModel

CONFIG = "config.json"
TENSORS = "ensemble.safetensors"
PROBE_PROMPT = "Name a colour of the sky."
PROBE_RESPONSE = "Blue."
TOLERANCE = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}
"""How far a probe's score may be off, in standard deviations: rounding, not another model."""


class BundleConfig(Contract):
    """`config.json`."""

    format: Literal[3] = 3
    shape: EnsembleShape
    pooling: Literal["closing+mean"] = Field(
        "closing+mean", description="heads read the hidden state of the closing EOS, and the response's mean"
    )
    temperature: float = Field(
        gt=0, description="σ((a - b) / temperature) is the calibrated probability that score a is the better one's"
    )
    reference_mean: list[float] = Field(description="K, of raw training scores; for readers, the tensors count")
    reference_std: list[float] = Field(description="K; as reference_mean")
    probe: list[float] = Field(description="K standardised scores of the probe sample")


def save_bundle(folder: Path, ensemble: RewardEnsemble, base: LanguageModel, *, temperature: float) -> None:
    """Writes the files of a bundle into an existing folder.

    Raises:
        ValueError: a member gives no finite score.
    """
    probe = _score_probe(ensemble, base)
    if not all(map(math.isfinite, probe)):
        raise ValueError(f"the ensemble scores its probe {probe}; training went wrong: lower the learning rate")
    config = BundleConfig(
        shape=ensemble.shape,
        temperature=temperature,
        reference_mean=ensemble.reference_mean.tolist(),
        reference_std=ensemble.reference_std.tolist(),
        probe=probe,
    )
    (folder / CONFIG).write_text(config.model_dump_json(indent=1) + "\n")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in ensemble.state_dict().items()}
    save_file(tensors, folder / TENSORS)


@dataclass(frozen=True)
class BundleCandidate:
    """A bundle whose tensors are sound, and whose scores were not yet compared with those where it was trained."""

    ref: str
    ensemble: RewardEnsemble
    config: BundleConfig
    base: LanguageModel

    def prove(self) -> RewardEnsemble:
        """Scores the probe: the only part that runs the backbone, so it belongs to the thread that owns that.

        Raises:
            Conflict: the bundle was made for another backbone; says how far it is off.
        """
        here, tolerance = _score_probe(self.ensemble, self.base), TOLERANCE[self.base.model.dtype]
        off = [abs(a - b) for a, b in zip(here, self.config.probe, strict=True)]
        if not all(difference <= tolerance for difference in off):
            raise Conflict(
                f"reward model {self.ref} was trained on {self.config.shape.backbone} and scores its probe differently "
                f"on {self.base.name}: off by {max(off):.3g} standard deviations, allowed {tolerance}; serve it on the "
                "backbone, tokenizer and chat template that it was trained with"
            )
        return self.ensemble


def load_bundle(folder: Path, base: LanguageModel) -> RewardEnsemble:
    """Loads a bundle whose bytes the store has verified.

    Raises:
        Conflict: it is no bundle, damaged, or made for another backbone; says what differs.
    """
    return read_bundle(folder, base).prove()


def read_bundle(folder: Path, base: LanguageModel) -> BundleCandidate:
    """Reads a bundle whose bytes the store has verified. Any thread may: the backbone is looked at, and not run.

    Raises:
        Conflict: it is no bundle, or damaged; names the file and says what is wrong.
    """
    ref = f"{folder.parent.name}@{folder.name}"
    if not (folder / TENSORS).is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise Conflict(f"reward model {ref} has no {TENSORS}, only {found}; no other format of weights is read")
    try:
        config = _read_config(folder / CONFIG)
        tensors = _read_tensors(folder / TENSORS)
        ensemble = RewardEnsemble(base, config.shape)
    except (OSError, ValueError) as error:
        raise Conflict(f"reward model {ref} cannot be used with {base.name}: {error}") from error
    _check_tensors(ref, tensors, ensemble.state_dict())
    ensemble.load_state_dict(tensors)
    ensemble.requires_grad_(False)
    return BundleCandidate(ref, ensemble, config, base)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        # Not mapped into memory: a file that is cut short meanwhile would end the process (SIGBUS).
        return load(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no safetensors file ({error}); publish it again") from error


def _read_config(path: Path) -> BundleConfig:
    try:
        config = BundleConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ValueError(
            f"{CONFIG}: {found}; publish it again, or train it again if an earlier release made it"
        ) from error
    if len(config.probe) != config.shape.members:
        raise ValueError(f"{CONFIG} gives {len(config.probe)} probe scores for {config.shape.members} members")
    return config


def _check_tensors(ref: str, tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    found, needed = ({name: _described(tensor) for name, tensor in each.items()} for each in (tensors, wanted))
    if found != needed:
        odd = min(name for name in {**found, **needed} if found.get(name) != needed.get(name))
        raise Conflict(
            f"{TENSORS} of {ref} does not match its {CONFIG}: {odd} is {found.get(odd, 'absent')}, "
            f"{needed.get(odd, 'nothing of that name')} is needed; publish it again"
        )
    broken = min((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), default=None)
    if broken is not None:
        raise Conflict(f"{TENSORS} of {ref} holds NaN or infinite values in {broken}; train it again")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _score_probe(ensemble: RewardEnsemble, base: LanguageModel) -> list[float]:
    length = ensemble.shape.max_length
    exchange = encode_exchange(base.tokenizer, PROBE_PROMPT, PROBE_RESPONSE, max_length=length)
    return [float(score) for score in ensemble.score([exchange], token_budget=length)[0]]
