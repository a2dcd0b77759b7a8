"""Which version is the best, by hand; and that what is chosen is kept, named and survives a crash."""

import json
from pathlib import Path

import pytest
import torch

from rlhf.contracts.jobs import BestVersion, PpoJobConfig
from services.trainer.ppo.best import WINDOW, find_best, objective, unjudged
from services.trainer.ppo.checkpoint import load_newest
from services.trainer.ppo.learner import PpoLearner
from tests.unit.ppo.stand_in import MemoryJob, job_config, make_batch, tiny_llama


def config(*, beta: float = 0.0, staleness: int = 0, checkpoint_every: int = 1, penalty: float = 0.0) -> PpoJobConfig:
    rollout = {"max_staleness": staleness, "repeated_ngram_penalty": penalty}
    return job_config(kl={"beta": beta}, rollout=rollout, checkpoint_every=checkpoint_every)


def history(rewards: list[float], kls: list[float] | None = None) -> list[dict[str, float]]:
    return [
        {"reward_mean": reward, "kl_sequence": kl, "repeated_tokens": 0.0, "response_length": 1.0}
        for reward, kl in zip(rewards, kls or [0.0] * len(rewards), strict=True)
    ]


def chosen(rewards: list[float], told: PpoJobConfig, kls: list[float] | None = None) -> int | None:
    best = find_best(history(rewards, kls), told)
    return None if best is None else best.step


def test_the_objective_is_the_reward_less_penalties_and_kl() -> None:
    # A tenth of 20 tokens is repeated: 2 tokens at 0.25 each; 4 nats at 0.5: 3 - 0.5 - 2 = 0.5.
    row = {"reward_mean": 3.0, "kl_sequence": 4.0, "repeated_tokens": 0.1, "response_length": 20.0}
    assert objective(row, config(beta=0.5, penalty=0.25)) == pytest.approx(0.5)


def test_one_lucky_step_does_not_decide() -> None:
    # Row t is of the samples of version t. Means of five that end with version 4, 5, ..., 11:
    # 3 (of 10, 0, 0, 0, 5), 2 (0, 0, 0, 5, 5), 3, 4, 5, 4, 3, 2: version 8 has the 5.
    rewards = [10.0, 0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]
    assert WINDOW == 5
    assert chosen(rewards, config()) == 8
    best = find_best(history(rewards), config())
    assert best is not None
    assert (best.reward, best.kl) == (5.0, 0.0)


def test_of_equal_ones_the_earliest_and_none_before_there_are_enough() -> None:
    assert chosen([1.0] * 4, config()) is None
    assert chosen([1.0] * 9, config()) == 4


def test_reward_that_was_bought_with_kl_does_not_count() -> None:
    rewards, kls = [1.0] * 5 + [2.0] * 5, [1.0] * 5 + [9.0] * 5
    assert chosen(rewards, config(beta=0.1), kls) == 9  # 2 - 0.9 > 1 - 0.1
    assert chosen(rewards, config(beta=0.2), kls) == 4  # 2 - 1.8 < 1 - 0.2


def test_sampled_ahead_a_version_is_judged_by_the_step_that_it_sampled() -> None:
    # With one step ahead, row t is of the samples of version t - 1.
    rewards = [0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]
    assert (chosen(rewards, config()), chosen(rewards, config(staleness=1))) == (6, 5)
    assert list(unjudged(10, config())) == [10]
    assert list(unjudged(10, config(staleness=2))) == [8, 9, 10]


def test_only_versions_with_a_checkpoint_count() -> None:
    rewards = [0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0]
    assert chosen(rewards, config()) == 7
    assert chosen(rewards, config(checkpoint_every=3)) == 6  # 6: mean 4; 9: mean 4, later


def rewarded(values: list[float]) -> MemoryJob:
    """A job whose step t has the reward values[t] for the mean of its samples."""

    def build(root: Path, **changes: object) -> MemoryJob:
        told = job_config(steps=len(values), rollout={"prompts_per_step": 1, "samples_per_prompt": 2}, **changes)
        return MemoryJob(
            root,
            told,
            lambda task: make_batch(
                [[1, 2, 3]], [[[5, 6], [7, 8]]], rewards=[values[task.step] - 1, values[task.step] + 1], task=task
            ),
        )

    return build  # type: ignore[return-value]


VALUES = [0.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]


def run(job: MemoryJob) -> PpoLearner:
    torch.manual_seed(0)
    learner = PpoLearner(job, tiny_llama())
    learner.run()
    return learner


@pytest.fixture
def job(tmp_path: Path) -> MemoryJob:
    return rewarded(VALUES)(tmp_path, kl={"beta": 0.0})  # type: ignore[operator]


def kept(job: MemoryJob) -> list[str]:
    return sorted(path.name for path in (job.folder / "checkpoints").iterdir())


def test_the_best_checkpoint_is_kept_beside_the_newest_and_named(job: MemoryJob) -> None:
    learner = run(job)
    # Version 6 sampled row 6, the last of the five with reward 5.
    assert kept(job) == ["step-00000006", "step-00000009", "step-00000010"]
    assert job.best == BestVersion(step=6, adapter="job@6", reward=5.0, kl=job.best.kl if job.best else 0.0)
    assert job.best is not None
    assert job.best.kl == pytest.approx(sum(row["kl_sequence"] for row in learner.history[2:7]) / 5)
    assert job.store.resolve("adapters", job.best.adapter).is_dir()
    assert job.events[-1] == "best"
    newest = load_newest(job.folder / "checkpoints")
    assert newest is not None
    assert newest.step == 10, "resume goes on from the newest"


def test_a_resumed_run_chooses_the_same(job: MemoryJob, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def progress(step: int, total: int, metrics: dict[str, float], best: BestVersion | None = None) -> None:
        if step == 8:
            raise Killed
        MemoryJob.progress(job, step, total, metrics, best)

    job.progress = progress  # type: ignore[method-assign]
    with pytest.raises(Killed):
        run(job)
    assert kept(job) == ["step-00000006", "step-00000007", "step-00000008"]
    del job.progress
    run(job)
    whole = rewarded(VALUES)(tmp_path / "whole", kl={"beta": 0.0})  # type: ignore[operator]
    run(whole)
    assert job.best == whole.best
    assert kept(job) == kept(whole)
    states = [
        json.loads((each.folder / "checkpoints/step-00000006/state.json").read_text())["state"] for each in (job, whole)
    ]
    assert states[0] == states[1]
