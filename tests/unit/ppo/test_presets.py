"""The settings of configs/ppo-*.json load as they are and train a tiny model of the family that each is for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.contracts.jobs import PpoJobConfig
from rlhf.lm.loading import LanguageModel
from rlhf.presets import PRESETS, preset_file
from services.trainer.ppo.learner import PpoLearner
from tests.unit.ppo.stand_in import MemoryJob, sampler, tiny_gpt_neo, tiny_llama

FAMILIES: dict[str, Callable[[], LanguageModel]] = {
    "smollm2-135m": lambda: tiny_llama(num_hidden_layers=6),
    "gpt-neo-125m": tiny_gpt_neo,
    "gpt-neo-1.3b": tiny_gpt_neo,
    "llama-2-7b": lambda: tiny_llama(num_key_value_heads=4, tie_word_embeddings=False),
}


def test_every_preset_is_a_file_and_every_file_a_preset() -> None:
    files = {path.stem for path in preset_file(PRESETS[0]).parent.glob("ppo-*.json")}
    assert files == {f"ppo-{name}" for name in PRESETS}
    assert set(FAMILIES) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_its_family(name: str, tmp_path: Path) -> None:
    settings = json.loads(preset_file(name).read_text())
    prompts = [f"{i} {i + 3} {2 * i}" for i in range(8)]
    config = PpoJobConfig.model_validate({**settings, "kind": "ppo", "prompts": prompts, "reward_model": "rm@1"})
    assert config.rollout.prompts_per_step * config.rollout.samples_per_prompt >= 64
    smaller = {"prompts_per_step": 4, "shards": 1, "max_new_tokens": 6}
    config = config.model_copy(update={"steps": 2, "rollout": config.rollout.model_copy(update=smaller)})
    base = FAMILIES[name]()
    job = MemoryJob(tmp_path, config, sampler(base, lambda ids: float(ids[0] < 12)))
    learner = PpoLearner(job, base)
    learner.run()
    assert sorted(job.rows) == [1, 2]
    assert learner.history[0]["ratio_first_minibatch"] == pytest.approx(1, abs=1e-4)
    adapted = {parameter.split(".lora_")[0].rpartition(".")[2] for parameter in learner.actor.trainable()}
    if config.lora.modules == "attention":
        output = "out_proj" if "neo" in name else "o_proj"
        assert {"q_proj", "k_proj", "v_proj", output} == {name for name in adapted if name.endswith("_proj")}
