"""What the learner tells, when it stops, and in which order it makes things durable."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.contracts.jobs import RewardModelJobConfig
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch, pack, unpack
from services.trainer.jobs.handle import ServicesFailed
from services.trainer.ppo.learner import PpoLearner, TrainingStopped
from services.trainer.ppo.update import shuffled_minibatches
from services.trainer.ppo.watchdogs import watch
from tests.unit.ppo.stand_in import MemoryJob, job_config, make_batch, random_batch, sampler, tiny_gpt_neo, tiny_llama


def start(root: Path, *, base: Any = None, sample: Any = None, **changes: Any) -> tuple[MemoryJob, PpoLearner]:
    base = base or tiny_llama()
    job = MemoryJob(root, job_config(**changes), sample or sampler(base, lambda ids: float(ids[0] < 12)))
    return job, PpoLearner(job, base)


def test_a_step_is_durable_before_its_batches_are_acknowledged_and_its_adapter_is_there_before_the_next_asks(
    tmp_path: Path,
) -> None:
    job, learner = start(tmp_path, steps=2, rollout={"shards": 2})
    order: list[str] = []

    def saved() -> list[str]:
        return sorted(path.name for path in (job.folder / "checkpoints").glob("step-*"))

    def acknowledge(batches: list[ExperienceBatch]) -> None:
        assert f"step-{batches[0].step + 1:08d}" in saved()
        order.append(f"acknowledged {batches[0].step}")

    def enqueue(tasks: list[RolloutTask]) -> None:
        assert all(task.adapter is None or job.store.resolve("adapters", task.adapter) for task in tasks)
        order.append(f"asked {tasks[0].step}")
        MemoryJob.enqueue(job, tasks)

    job.acknowledge, job.enqueue = acknowledge, enqueue
    learner.run()
    assert order == ["asked 0", "acknowledged 0", "asked 1", "acknowledged 1"]


def test_sampled_ahead_a_step_is_asked_for_before_the_one_before_it_is_learned(tmp_path: Path) -> None:
    job, learner = start(tmp_path, steps=4, rollout={"max_staleness": 1})
    order: list[str] = []

    def enqueue(tasks: list[RolloutTask]) -> None:
        assert all(task.adapter is None or job.store.resolve("adapters", task.adapter) for task in tasks)
        order.append(f"asked {tasks[0].step} of {tasks[0].policy_version}")
        MemoryJob.enqueue(job, tasks)
        job.pull(tasks[0].step, 1)  # is sampled now, by the weights of now

    def acknowledge(batches: list[ExperienceBatch]) -> None:
        order.append(f"learned {batches[0].step}")

    job.acknowledge, job.enqueue = acknowledge, enqueue
    learner.run()
    # Step 1 is sampled by the base model while step 0 is learned, step 2 by version 1 while step 1 is, and so on. What
    # was asked for already is asked for again, which the collector knows.
    assert [line for line in dict.fromkeys(order) if line.startswith("asked")] == [
        "asked 0 of 0",
        "asked 1 of 0",
        "asked 2 of 1",
        "asked 3 of 2",
    ]
    assert order.index("asked 2 of 1") < order.index("learned 1")
    assert [row["staleness"] for row in learner.history] == [0, 1, 1, 1]
    # The ratio is to the learner's own weights before the update, whoever sampled; the importance weights tell.
    assert [row["ratio_first_minibatch"] for row in learner.history] == pytest.approx([1] * 4, abs=1e-5)
    assert learner.history[1]["engine_mismatch"] > 100 * learner.history[0]["engine_mismatch"]


def test_the_metrics_are_what_the_report_and_the_watchdogs_read(tmp_path: Path) -> None:
    job, learner = start(tmp_path, steps=2)
    learner.run()
    wanted = {
        "policy_loss",
        "value_loss",
        "kl_sequence",
        "kl_token",
        "kl_k3",
        "kl_target",
        "beta",
        "reward_mean",
        "reward_std",
        "score_mean",
        "uncertainty_mean",
        "entropy",
        "clip_fraction",
        "explained_variance",
        "ratio_first_minibatch",
        "response_length",
        "eos_rate",
        "samples",
        "tokens",
        "failures",
        "rep4",
        "grad_norm",
        "learning_rate",
        "importance_mean",
        "engine_mismatch",
        "step_s",
        "rollout_s",
        "learn_s",
        "tokens_per_s",
    }
    assert sorted(job.rows) == [1, 2]
    for row in job.rows.values():
        assert wanted <= set(row)
        assert all(math.isfinite(value) for value in row.values())
    assert job.rows[1]["samples"] == 32
    # 8 prompts in 2 minibatches, 2 epochs
    steps = [float(state["step"]) for state in learner.optimizer.state.values()]
    assert steps == [2 * 2 * 2] * len(learner.actor.trainable())
    watch([job.rows[1], job.rows[2]], kl_target=1.0)


def test_readings_of_a_batch_by_hand(tmp_path: Path) -> None:
    # Rewards 1, 3; the second response was cut: 3 - 0.5 = 2.5. Mean 1.75, deviation 0.75; lengths 2 and 4.
    batch = make_batch([[1, 2, 3]], [[[5, 23], [5, 6, 7, 8]]], rewards=[1.0, 3.0])
    _, learner = start(tmp_path, rollout={"missing_eos_penalty": 0.5})
    metrics = learner.learn([batch])
    assert (metrics["reward_mean"], metrics["reward_std"]) == pytest.approx((1.75, 0.75))
    assert metrics["score_mean"] == 2.0
    assert (metrics["response_length"], metrics["eos_rate"], metrics["tokens"]) == (3.0, 0.5, 6)
    assert metrics["uncertainty_mean"] == pytest.approx(0.1)


def test_objectives_are_told_each_by_its_mean_over_all_batches(tmp_path: Path) -> None:
    _, learner = start(tmp_path, rollout={"max_failed_fraction": 1.0})
    one = dataclasses.replace(
        make_batch([[1]], [[[5, 6]]]),
        objectives={"preference": np.array([2.0], np.float32), "length": np.array([-1.0], np.float32)},
    )
    two = dataclasses.replace(
        make_batch([[2]], [[[7], [8]]]),
        objectives={"preference": np.array([0.5, -1.0], np.float32), "length": np.array([0.0, -0.5], np.float32)},
    )
    metrics = learner.learn([one, make_batch([], [], failures=["x"]), two])
    # (2 + 0.5 - 1) / 3, (-1 + 0 - 0.5) / 3
    told = {name: value for name, value in metrics.items() if name.startswith("objective_")}
    assert told == {"objective_preference_mean": 0.5, "objective_length_mean": -0.5}


def test_batches_learn_the_same_after_their_trip_over_the_wire(tmp_path: Path) -> None:
    ends = []
    for i, trip in enumerate((lambda b: b, lambda b: unpack(pack(b)))):
        _, learner = start(tmp_path / str(i))
        learner.learn([trip(random_batch(1)), trip(random_batch(2))])
        ends.append({n: p.detach().clone() for n, p in learner.actor.trainable().items()})
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())


def test_dropped_samples_are_told_and_too_many_pause_the_run(tmp_path: Path) -> None:
    # 12 samples, 4 dropped of 16: exactly the allowed quarter; 5 of 17: more.
    job, learner = start(tmp_path, rollout={"max_failed_fraction": 0.25})
    allowed = dataclasses.replace(random_batch(1), failures=["reward answered 503"] * 4)
    assert learner.learn([allowed])["failures"] == 4
    assert "samples_dropped" in job.events
    with pytest.raises(ServicesFailed, match=r"29% of the samples failed .*=0.25\); the first reason: reward"):
        learner.learn([dataclasses.replace(allowed, failures=["reward answered 503"] * 5)])


def test_a_step_without_samples_pauses_the_run_whatever_is_allowed(tmp_path: Path) -> None:
    _, learner = start(tmp_path, rollout={"max_failed_fraction": 1.0})
    with pytest.raises(ServicesFailed, match="100% of the samples failed"):
        learner.learn([make_batch([], [], failures=["timeout"] * 3)])
    with pytest.raises(ServicesFailed, match="the rollouts are empty"):
        learner.learn([make_batch([], [])])


def test_a_group_may_lose_samples_and_a_shard_all(tmp_path: Path) -> None:
    _, learner = start(tmp_path, rollout={"max_failed_fraction": 0.9})
    partial = make_batch([[1], [2]], [[[5, 6]], [[7], [8, 9], [10]]], rewards=[1.0, 2.0, 3.0, 4.0], failures=["x"] * 4)
    metrics = learner.learn([make_batch([], [], failures=["x"] * 2), partial])
    assert (metrics["samples"], metrics["failures"]) == (4, 6)
    assert math.isfinite(metrics["policy_loss"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rewards_that_are_not_finite_stop_the_run_and_leave_the_last_checkpoint(value: float, tmp_path: Path) -> None:
    base = tiny_llama()
    healthy = sampler(base, lambda ids: float(ids[0] < 12))

    def sample(task: RolloutTask) -> ExperienceBatch:
        batch = healthy(task)
        if task.step == 1:
            np.copyto(batch.rewards[:1], value)
        return batch

    job, learner = start(tmp_path, base=base, sample=sample)
    with pytest.raises(TrainingStopped, match="step 1: not_finite"):
        learner.run()
    assert "not_finite" in job.events
    assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["step-00000001"]
    assert job.store.versions("adapters", "job") == [1]
    assert job.acknowledged == ["job:0:0"]


def test_equal_rewards_are_told_and_teach_nothing_but_the_kl(tmp_path: Path) -> None:
    base = tiny_llama()
    kl = {"schedule": "fixed", "beta": 0.0}
    job, learner = start(tmp_path, base=base, sample=sampler(base, lambda ids: 1.0), kl=kl, steps=2)
    before = {n: p.detach().clone() for n, p in learner.actor.trainable().items()}
    learner.run()
    assert {"reward_constant", "policy_loss_zero", "kl_zero"} <= set(job.events)
    assert all(torch.equal(p, before[n]) for n, p in learner.actor.trainable().items())


def test_every_version_is_published_and_told(tmp_path: Path) -> None:
    job, learner = start(tmp_path, steps=3)
    learner.run()
    assert job.store.versions("adapters", "job") == [1, 2, 3]
    assert job.events.count("published") == 3
    assert job.events.count("sample") == 3


def test_the_learning_rate_of_the_step_is_used(tmp_path: Path) -> None:
    update = {"learning_rate": 0.01, "lr_schedule": "linear", "warmup_steps": 1}
    job, learner = start(tmp_path, steps=3, update=update)
    learner.run()
    # Warm-up 1/2; then 1 - 0/2, 1 - 1/2
    assert [row["learning_rate"] for row in job.rows.values()] == pytest.approx([0.005, 0.01, 0.005])
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


def test_penalties_in_the_rollouts_are_weighed_and_told(tmp_path: Path) -> None:
    # The engine sampled from another distribution: its log-probabilities are 0.5 higher than the policy's.
    base = tiny_llama()
    plain = sampler(base, lambda ids: float(ids[0] < 12))

    def sample(task: RolloutTask) -> ExperienceBatch:
        batch = plain(task)
        return dataclasses.replace(batch, behavior_logprobs=[row + np.float32(0.5) for row in batch.behavior_logprobs])

    job, learner = start(tmp_path, base=base, sample=sample, steps=1)
    learner.run()
    # w = exp(-0.5) for every token
    assert job.rows[1]["importance_mean"] == pytest.approx(math.exp(-0.5), rel=1e-4)
    assert job.rows[1]["engine_mismatch"] == pytest.approx(0.5, rel=1e-4)
    assert "engine_mismatch" in job.events


def test_gpt_neo_learns_without_packing(tmp_path: Path) -> None:
    base = tiny_gpt_neo()
    job, learner = start(tmp_path, base=base, steps=8)
    learner.run()
    assert job.rows[8]["reward_mean"] > job.rows[1]["reward_mean"] + 0.15
    assert all(row["engine_mismatch"] < 1e-5 for row in job.rows.values())
    # 32 rows of one sample: two minibatches of 16
    assert [len(part) for part in shuffled_minibatches(32, 2, 0, 0)] == [16, 16]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_train_a_float32_adapter(dtype: torch.dtype, tmp_path: Path) -> None:
    base = tiny_llama()
    base.model.to(dtype)
    update = {"tokens_per_microbatch": 100, "minibatches": 3}
    _, learner = start(tmp_path, base=base, steps=3, update=update)
    learner.run()
    assert {parameter.dtype for parameter in learner.actor.trainable().values()} == {torch.float32}
    assert learner.history[-1]["kl_sequence"] != 0
    for row in learner.history:
        assert row["ratio_first_minibatch"] == pytest.approx(1, abs=0.02)
        assert math.isfinite(row["policy_loss"])


def test_another_kind_of_job_is_refused(tmp_path: Path) -> None:
    job, _ = start(tmp_path)
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2
    job.config = RewardModelJobConfig(kind="reward_model", pairs=pairs)
    with pytest.raises(TypeError, match="job job has kind 'reward_model'; the PPO learner runs kind 'ppo'"):
        PpoLearner(job, tiny_llama())
