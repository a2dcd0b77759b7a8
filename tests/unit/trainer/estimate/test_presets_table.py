"""The table of docs/memory.md is what the formula gives for the presets on the models that they are for."""

import json
import re
from pathlib import Path
from typing import Any

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.presets import PRESETS, preset_file
from services.trainer.estimate.ppo_load import step_load
from services.trainer.estimate.ppo_memory import learner_memory, policy_memory
from services.trainer.estimate.shape import DTYPE_BYTES, read_shape
from tests.unit.trainer.estimate.published import GPT_NEO_1_3B, GPT_NEO_125M, LLAMA_2_7B, SMOLLM2_135M

PAGE = Path(__file__).parents[4] / "docs" / "memory.md"
MODELS = dict(zip(PRESETS, (SMOLLM2_135M, GPT_NEO_125M, GPT_NEO_1_3B, LLAMA_2_7B), strict=True))
PROMPT = 64
TRAINED = ("adapter", "trained_weights", "value_head", "gradients", "adamw_moments")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in PRESETS},
    "smollm2-135m, full, 4 layers": ("smollm2-135m", {"full": {"top_layers": 4}, "lora": None}),
    "smollm2-135m, full": ("smollm2-135m", {"full": {}, "lora": None}),
}
"""The presets, and what is changed of one."""


def table() -> list[str]:
    """Rows of: preset, dtype, base weights, what is trained, activations, learner, learner recomputing, policy."""
    rows = []
    for name, (preset, changed) in CASES.items():
        settings = json.loads(preset_file(preset).read_text()) | changed
        config = PpoJobConfig.model_validate({**settings, "kind": "ppo", "prompts": ["Hi"], "reward_model": "rm@1"})
        again = config.model_copy(update={"update": config.update.model_copy(update={"gradient_checkpointing": True})})
        shape = read_shape(MODELS[preset])
        load = step_load(config, packs=shape.packs, lengths=[PROMPT])
        for dtype in ("float32", "bfloat16"):
            size = DTYPE_BYTES[dtype]
            parts = learner_memory(shape, config, load, size)
            trained = sum(parts[each] for each in TRAINED if each in parts)
            cells = (
                parts["base_weights"],
                trained,
                parts["activations"],
                sum(parts.values()),
                sum(learner_memory(shape, again, load, size).values()),
                sum(policy_memory(shape, config.trained, 16384, size).values()),
            )
            figures = " | ".join(f"{cell / 2**30:.2f}" for cell in cells)
            rows.append(f"| `{name}` | {dtype} | {figures} |")
    return rows


def test_the_table_of_the_documentation_is_the_formulas() -> None:
    assert re.findall(r"^\| `.*", PAGE.read_text("utf-8"), re.MULTILINE) == table()


if __name__ == "__main__":
    print("\n".join(table()))
