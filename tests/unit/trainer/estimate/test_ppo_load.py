"""A step's samples, rows and bytes against the learner's own rows and the wire's own bytes."""

import pytest

from rlhf.contracts.jobs import PpoJobConfig
from services.trainer.estimate.ppo_load import prompt_tokens, step_load
from services.trainer.experience.batch import pack
from services.trainer.ppo.collate import collate, split_by_tokens
from tests.unit.ppo.stand_in import make_batch

PROMPT, NEW, SAMPLES, PROMPTS = 10, 20, 5, 6


def config(budget: int, minibatches: int = 1) -> PpoJobConfig:
    rollout = {"prompts_per_step": PROMPTS, "samples_per_prompt": SAMPLES, "max_new_tokens": NEW}
    update = {"tokens_per_microbatch": budget, "minibatches": minibatches}
    return PpoJobConfig(kind="ppo", prompts=["Hi"], reward_model="rm@1", rollout=rollout, update=update)


@pytest.mark.parametrize("minibatches", [1, 4])
@pytest.mark.parametrize("budget", [64, 100, 115, 400, 4096])
@pytest.mark.parametrize("packs", [True, False])
def test_rows_and_micro_batches_are_the_learners(packs: bool, budget: int, minibatches: int) -> None:
    responses = [[[2] * NEW] * SAMPLES] * PROMPTS
    rollout = collate([make_batch([[1] * PROMPT] * PROMPTS, responses)], row_tokens=budget if packs else None)
    load = step_load(config(budget, minibatches), packs=packs, lengths=[PROMPT])
    lengths = [row.length for row in rollout.rows]
    assert load.learner_tokens == sum(lengths)
    assert (load.samples, load.response_tokens) == (PROMPTS * SAMPLES, PROMPTS * SAMPLES * NEW)
    # Minibatches of the longest rows, and of the shortest: a shuffle may make either.
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    size = -(-len(lengths) // minibatches)
    parts = [part for rows in (order[:size], order[-size:]) for part in split_by_tokens(rows, lengths, budget)]
    assert load.micro_batch.tokens == max(lengths[part[0]] * len(part) for part in parts)


def test_one_row_may_exceed_the_budget() -> None:
    load = step_load(config(64), packs=True, lengths=[10, 500])
    # 500 of the longest prompt leave no room, so each of its samples has its own row.
    assert (load.micro_batch.rows, load.micro_batch.length, load.micro_batch.packed) == (1, 520, False)


def test_a_steps_experience_takes_about_what_the_wire_does() -> None:
    # The text of a prompt is of 4 characters a token, without the template's tokens; so are the responses.
    prompt = "x" * 4 * 200
    batch = make_batch([[1] * prompt_tokens(prompt)] * PROMPTS, [[[2] * 300] * SAMPLES] * PROMPTS)
    batch.prompts[:] = [prompt] * len(batch)
    batch.responses[:] = ["r" * 4 * 300] * len(batch)
    asked = config(4096).model_copy(update={"prompts": [prompt]})
    asked.rollout.max_new_tokens = 300
    assert step_load(asked, packs=True).redis_bytes == pytest.approx(len(pack(batch)), rel=0.02)


def test_steps_that_wait_for_a_checkpoint_or_are_sampled_ahead_stay_in_redis() -> None:
    ahead = config(4096).model_copy(update={"checkpoint_every": 5})
    ahead.rollout.max_staleness = 2
    assert step_load(ahead, packs=True).steps_in_redis == 7
