"""Sampling responses from a tiny random Llama: who takes part, limits, and the same draws for the same seed."""

import pytest
import torch

from rlhf.demo.prompts import Prompt
from rlhf.demo.sampling import SETTINGS, Setting, sample_responses
from tests.tiny_models import save_tiny_llama

PROMPTS = [Prompt(f"question-{i:03d}", "question", "Why " + "so " * i + "?", "train") for i in range(5)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def draw(model_dir, settings, seed=0, batch_size=2):
    batches = sample_responses(
        model_dir, PROMPTS, seed=seed, dtype=torch.float32, batch_size=batch_size, settings=settings
    )
    return [sample for batch in batches for sample in batch]


def test_every_and_offset_decide_who_takes_part(model_dir):
    samples = draw(model_dir, [Setting("all", "Be brief.", 0.7, 3), Setting("some", "Be brief.", 0.7, 3, 1.1, 2, 1)])
    by_setting = {name: {s.prompt_id for s in samples if s.setting == name} for name in ("all", "some")}
    assert by_setting["all"] == {prompt.id for prompt in PROMPTS}
    assert by_setting["some"] == {"question-001", "question-003"}


def test_draws_depend_on_the_seed_only(model_dir):
    first, second = Setting("first", "Be brief.", 0.7, 6), Setting("second", "Be brief.", 1.0, 6)
    both = draw(model_dir, [first, second])
    assert both == draw(model_dir, [first, second])
    assert both != draw(model_dir, [first, second], seed=1)
    # A setting's draws do not depend on what was sampled before it.
    assert draw(model_dir, [second]) == [sample for sample in both if sample.setting == "second"]


def test_responses_are_stripped_and_free_of_special_tokens(model_dir):
    for sample in draw(model_dir, [Setting("hot", "Be brief.", 1.0, 12)]):
        assert sample.response == sample.response.strip()
        assert "<|im_" not in sample.response


def test_every_prompt_gets_at_least_four_responses():
    for number in range(12 * 5):
        assert sum(number % setting.every == setting.offset for setting in SETTINGS) >= 4
