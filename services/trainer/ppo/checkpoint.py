"""Checkpoints of a PPO run: whole or absent, verified on load, the newest few kept and the best. No pickle.

Everything random derives from (seed, step, epoch), so there is no generator state to keep: weights, optimiser moments,
the KL controller and the metrics so far are the whole state.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.artifacts.folders import sync_folder, verify_manifest, write_manifest
from rlhf.contracts.errors import Conflict
from services.trainer.ppo.parallel import placed_like, whole_by_name

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a resumed run starts from.

    Attributes:
        step: the next step to do.
        parameters: by name.
        moments: AdamW's state by `{parameter}.{key}`.
        state: the KL controller and other small state.
        history: one row of metrics for each finished step.
    """

    step: int
    parameters: dict[str, Tensor]
    moments: dict[str, Tensor]
    state: dict[str, Any]
    history: list[dict[str, float]]


def save_checkpoint(
    folder: Path,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    keep: Collection[int] = (),
    *,
    write: bool = True,
) -> None:
    """Writes `folder/step-N`, durable when this returns (temporary folder, fsync, rename), and prunes older ones.

    Whole tensors, however many processes hold them.

    Args:
        folder: of the checkpoints.
        step: N, steps done.
        parameters: by name.
        optimizer: of these parameters.
        state: JSON values.
        history: one row of metrics for each finished step.
        keep: steps whose checkpoints stay beside the newest KEPT.
        write: False in processes that only help to gather the tensors.
    """
    weights = whole_by_name(parameters, keep=write)
    moments = whole_by_name(_moments(parameters, optimizer), keep=write)
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    target, temporary = _folder(folder, step), folder / f".{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        save_file(weights, temporary / "parameters.safetensors")
        save_file(moments, temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step, "state": state, "history": list(history)}))
        write_manifest(temporary)
        if target.exists():
            # Out of the way in one move: a crash amid deletions must not leave half a checkpoint as the newest.
            target.rename(folder / f".{uuid.uuid4().hex}")
        temporary.rename(target)
        sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    # Hidden folders are what crashes left; a job has one writer at a time.
    kept = {_folder(folder, each) for each in keep}
    for old in [*(each for each in sorted(folder.glob("step-*"))[:-KEPT] if each not in kept), *folder.glob(".*")]:
        shutil.rmtree(old, ignore_errors=True)  # what cannot be deleted now is tried again at the next step


def load_newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None when there is none.

    Raises:
        Conflict: the newest is damaged; names the file.
    """
    folders = sorted(folder.glob("step-*"))
    if not folders:
        return None
    try:
        verify_manifest(folders[-1])
    except Conflict as error:
        raise Conflict(
            f"checkpoint {folders[-1]} is damaged ({error}); restore that folder from a backup, or submit the job again"
        ) from error
    saved = json.loads((folders[-1] / "state.json").read_text())
    return Checkpoint(
        step=saved["step"],
        parameters=load_file(folders[-1] / "parameters.safetensors"),
        moments=load_file(folders[-1] / "optimizer.safetensors"),
        state=saved["state"],
        history=saved["history"],
    )


def restore(checkpoint: Checkpoint, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Puts weights and optimiser moments back, bit for bit.

    Raises:
        ValueError: the checkpoint belongs to another model or adapter.
    """
    saved = {name: tuple(tensor.shape) for name, tensor in checkpoint.parameters.items()}
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if saved != wanted:
        odd = min(name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name))
        raise ValueError(
            f"the checkpoint does not belong to the model: {odd} has shape {saved.get(odd)} in the checkpoint and "
            f"{wanted.get(odd)} in the model; was RLHF_MODEL changed?"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(placed_like(checkpoint.parameters[name], parameter))
            saved_moments = {
                key: checkpoint.moments[f"{name}.{key}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{name}.{key}" in checkpoint.moments
            }
            if saved_moments:
                # AdamW counts its steps on the CPU.
                optimizer.state[parameter] = {
                    key: value if key == "step" else placed_like(value, parameter)
                    for key, value in saved_moments.items()
                }


def _folder(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _moments(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
