import math
from collections import Counter
from typing import Any

import pytest

from rlhf.contracts.jobs import PpoJobConfig, PpoUpdateConfig
from rlhf.contracts.rollout import RolloutTask
from services.trainer.ppo.schedule import derive_seed, learning_rate, rollout_tasks, step_prompts, steps_to_ask_for


def config(prompts: int = 10, per_step: int = 4, *, shards: int = 1, seed: int = 0, **rollout: Any) -> PpoJobConfig:
    return PpoJobConfig(
        kind="ppo",
        prompts=[f"prompt {i}" for i in range(prompts)],
        reward_model="rm@1",
        seed=seed,
        rollout={"prompts_per_step": per_step, "shards": shards, **rollout},
    )


def passes(job: PpoJobConfig, count: int) -> list[list[str]]:
    size, per_step = len(job.prompts), job.rollout.prompts_per_step
    drawn = [p for step in range(-(-count * size // per_step)) for p in step_prompts(job, step)]
    return [drawn[i * size : (i + 1) * size] for i in range(count)]


@pytest.mark.parametrize(("prompts", "per_step"), [(10, 4), (10, 10), (3, 8), (1, 4), (7, 1)])
def test_every_pass_has_each_prompt_once(prompts: int, per_step: int) -> None:
    job = config(prompts, per_step)
    for drawn in passes(job, 3):
        assert sorted(drawn) == sorted(job.prompts)


def test_every_pass_has_another_order_and_every_seed_others() -> None:
    orders = [*passes(config(), 3), *passes(config(seed=1), 3)]
    assert len({tuple(order) for order in orders}) == 6
    assert passes(config(), 3) == orders[:3]


def test_a_step_holds_as_many_prompts_as_asked_even_over_several_passes() -> None:
    # 8 of 3 prompts: two whole passes and two of the third
    drawn = Counter(step_prompts(config(3, 8), 0))
    assert sorted(drawn.values()) == [2, 3, 3]


def test_tasks_hold_every_prompt_of_the_step_once() -> None:
    job = config(10, 7, shards=3)
    tasks = rollout_tasks(job, "job", 2)
    # 7 prompts over 3 shards
    assert [len(task.prompts) for task in tasks] == [3, 2, 2]
    assert sorted(p for task in tasks for p in task.prompts) == sorted(step_prompts(job, 2))
    assert [task.batch_id for task in tasks] == ["job:2:0", "job:2:1", "job:2:2"]


def test_repeated_tasks_are_the_same_and_others_have_other_seeds() -> None:
    job = config(10, 4, shards=2)
    assert rollout_tasks(job, "job", 3) == rollout_tasks(job, "job", 3)
    seeds = [
        task.sampling.seed
        for seeded in (job, config(10, 4, shards=2, seed=1))
        for step in range(4)
        for task in rollout_tasks(seeded, "job", step)
    ]
    # 2 seeds × 4 steps × 2 shards
    assert len(set(seeds)) == 16


def test_tasks_ask_for_what_the_job_says() -> None:
    job = config(
        samples_per_prompt=3, max_new_tokens=17, temperature=0.7, repetition_penalty=1.2, no_repeat_ngram_size=3
    )
    first, later = rollout_tasks(job, "job", 0)[0], rollout_tasks(job, "job", 5)[0]
    sampling = first.sampling
    assert (sampling.n, sampling.max_new_tokens, sampling.temperature) == (3, 17, 0.7)
    assert (sampling.repetition_penalty, sampling.no_repeat_ngram_size) == (1.2, 3)
    # The plain policy but for what the job asks: anything else would bias the importance weights.
    assert (sampling.top_p, sampling.top_k, sampling.min_new_tokens, sampling.stop) == (1.0, 0, 0, [])
    # Step 0 samples the base model, step 5 what was published after five steps.
    assert (first.adapter, first.policy_version) == (None, 0)
    assert (later.adapter, later.policy_version) == ("job@5", 5)
    assert (first.reward_model, first.aggregation) == (job.reward_model, job.aggregation)
    assert first.objectives is None


def test_steps_sampled_ahead_use_the_policy_of_so_many_steps_before() -> None:
    job = config(max_staleness=2)
    versions = [rollout_tasks(job, "job", step)[0].policy_version for step in range(6)]
    assert versions == [0, 0, 0, 1, 2, 3]
    assert [rollout_tasks(job, "job", step)[0].adapter for step in (2, 3)] == [None, "job@1"]
    # steps=100: when step 97 begins, 98 and 99 are asked for as well, and then there are no more.
    assert [list(steps_to_ask_for(job, step)) for step in (0, 97, 98, 99)] == [[0, 1, 2], [97, 98, 99], [98, 99], [99]]
    assert list(steps_to_ask_for(config(), 7)) == [7]


def test_a_jobs_objectives_go_with_its_tasks_through_the_queue() -> None:
    objectives = [{"kind": "preference"}, {"kind": "ensemble", "model": "rm@2", "aggregation": {"lambda": 2.0}}]
    job = PpoJobConfig(kind="ppo", prompts=["p"], reward_model="rm@1", objectives=objectives)
    (task,) = rollout_tasks(job, "job", 0)
    assert task.objectives == job.objectives
    assert RolloutTask.model_validate_json(task.model_dump_json(by_alias=True)) == task


def test_seeds_depend_on_every_part_and_its_place() -> None:
    seeds = [derive_seed("a", 1, 2), derive_seed("a", 2, 1), derive_seed("b", 1, 2), derive_seed("a", 12)]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_learning_rates_by_hand() -> None:
    def rates(schedule: str) -> list[float]:
        update = PpoUpdateConfig(learning_rate=1.0, warmup_steps=2, lr_schedule=schedule)
        return [learning_rate(update, step, 6) for step in range(7)]

    # Warm-up over 2 steps: 1/3, 2/3. Then 4 steps: linear 1, 3/4, 1/2, 1/4, and 0 at total_steps
    assert rates("linear") == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25, 0.0])
    assert rates("constant") == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 1.0, 1.0, 1.0])
    # (1 + cos(π·n/4))/2: cos = 1, √½, 0, -√½, -1
    half = math.sqrt(0.5)
    expected = [1 / 3, 2 / 3, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0]
    assert rates("cosine") == pytest.approx(expected, abs=1e-12)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    for schedule in ("constant", "linear", "cosine"):
        assert learning_rate(PpoUpdateConfig(learning_rate=0.5, lr_schedule=schedule), 0, 10) == 0.5


def test_a_warm_up_longer_than_the_run_never_reaches_the_rate() -> None:
    update = PpoUpdateConfig(learning_rate=1.0, warmup_steps=9, lr_schedule="linear")
    # (2 + 1)/(9 + 1)
    assert learning_rate(update, 2, 3) == pytest.approx(0.3)
