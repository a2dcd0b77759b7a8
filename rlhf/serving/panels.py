"""The operator's panels: the setting that names their file, and how it is read. What their members compute is not here.

The reward service scores by them, the job API knows their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rlhf.contracts.panels import Panel, Panels
from rlhf.contracts.reward import RewardSample

KINDS = ("classifier", "remote")
LEAST_REFERENCE = 2


class PanelSettings(BaseSettings):
    """The setting of both services; read once, and a file that is wrong stops them at the start."""

    model_config = SettingsConfigDict(env_prefix="RLHF_", extra="ignore")

    reward_panels: Path | None = Field(
        None, description="JSON file of ensembles with members from elsewhere; see docs/reward.md"
    )

    _panels: dict[str, Panel] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _read_panels(self) -> Self:
        if self.reward_panels is not None:
            self._panels = read_panels(self.reward_panels)
        return self

    @property
    def panels(self) -> dict[str, Panel]:
        """Panels by their `name@version`; none without a file."""
        return self._panels


def read_panels(path: Path) -> dict[str, Panel]:
    """Panels by their `name@version`.

    Raises:
        ValueError: names file, key and value that are wrong, and the cure.
    """
    try:
        return Panels.model_validate_json(path.read_bytes()).root
    except OSError as error:
        raise ValueError(
            f"RLHF_REWARD_PANELS: {path} cannot be read ({error.strerror}); give the path of a JSON file"
        ) from error
    except ValidationError as error:
        raise ValueError(f"RLHF_REWARD_PANELS: {path}: {'; '.join(_wrongs(error))}") from error


def read_reference(ref: str, panel: Panel) -> list[RewardSample]:
    """The samples that make the scale of the members without their own.

    Raises:
        ValueError: the file cannot be read, has a line that is no sample, or too few; says which.
    """
    where = f"{ref}.reference"
    if isinstance(panel.reference, str):
        where = f"{where} {panel.reference}"
        samples = list(_read_lines(where, Path(panel.reference)))
    else:
        samples = panel.reference or []
    if len(samples) < LEAST_REFERENCE and any(member.mean is None for member in panel.members):
        raise ValueError(f"{where} has {len(samples)} samples, which have no spread; give {LEAST_REFERENCE} or more")
    return samples


def _read_lines(where: str, path: Path) -> Iterator[RewardSample]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} cannot be read ({error}); give a JSON Lines file") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield RewardSample.model_validate_json(line)
            except ValidationError as error:
                raise ValueError(f"{where}, line {number}: {'; '.join(_wrongs(error))}") from error


def _wrongs(error: ValidationError) -> Iterator[str]:
    """Each error as key, what is wrong with it, and the value seen."""
    for wrong in error.errors(include_url=False):
        key = ".".join(str(part) for part in wrong["loc"] if part not in (*KINDS, "[key]")) or "the file"
        if wrong["type"] == "extra_forbidden":
            yield f"{key}: unknown key; remove it or correct its name"
        elif wrong["type"] == "value_error":
            yield f"{key}: {wrong['ctx']['error']}"
        else:
            yield f"{key}: {wrong['msg']} (got {_shown(wrong['input'])})"


def _shown(value: Any) -> str:
    # What stands before the host of an address may be a password.
    text = re.sub(r"//[^/]*@", "//...@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."
