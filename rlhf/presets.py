"""Settings of PPO jobs by model, `configs/ppo-*.json`, and how a user's own go over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = ("smollm2-135m", "gpt-neo-125m", "gpt-neo-1.3b", "llama-2-7b")
"""Models that `configs/ppo-*.json` have settings for."""


def preset_file(model: str) -> Path:
    """The settings for a model. Args: model, one of PRESETS."""
    return CONFIGS / f"ppo-{model}.json"


def overridden(preset: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The preset with the settings in place of its own; of a group such as `lora`, those that are named."""
    groups = {
        name: preset[name] | group
        for name, group in settings.items()
        if isinstance(group, dict) and isinstance(preset.get(name), dict)
    }
    return {**preset, **settings, **groups}
