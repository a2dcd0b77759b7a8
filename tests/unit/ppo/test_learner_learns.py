"""The whole learner on tasks whose optimum is known, and on the same with one thing broken on purpose."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from services.trainer.experience.batch import ExperienceBatch
from services.trainer.ppo import learner as learner_module
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import Rollout, collate
from services.trainer.ppo.learner import PpoLearner
from services.trainer.ppo.parallel import Shares
from services.trainer.ppo.passes import Scored, score_rollout
from services.trainer.ppo.update import RatioCheckFailed
from tests.unit.ppo.stand_in import MemoryJob, Reward, job_config, sampler, tiny_llama

STEPS = 24
LONGEST = 6


def share_of_a_token(ids: list[int]) -> float:
    """1 when every token is 5. The untrained model: about 1/24."""
    return ids.count(5) / len(ids)


def shortness(ids: list[int]) -> float:
    """-1/6 when EOS comes at once, -1 at the limit. The untrained model: about -0.9."""
    return -len(ids) / LONGEST


def last_token(ids: list[int]) -> float:
    """1 when the last token is less than 6: what is right is one place. The untrained model: about 1/4."""
    return float(ids[-1] < 6)


def train(
    root: Path, reward: Reward, seed: int = 1, longest: int = LONGEST
) -> tuple[float, float, MemoryJob, PpoLearner]:
    """Mean reward of the first step and of the last five."""
    base = tiny_llama(seed)
    config = job_config(seed=seed, steps=STEPS, rollout={"max_new_tokens": longest}, checkpoint_every=STEPS)
    job = MemoryJob(root, config, sampler(base, reward))
    learner = PpoLearner(job, base)
    learner.run()
    rewards = [row["reward_mean"] for row in learner.history]
    return rewards[0], sum(rewards[-5:]) / 5, job, learner


@pytest.mark.parametrize("seed", [1, 2])
def test_the_share_of_a_token_is_learnt(seed: int, tmp_path: Path) -> None:
    before, after, job, learner = train(tmp_path, share_of_a_token, seed)
    assert before < 0.15
    assert after > 0.8
    assert all(abs(row["ratio_first_minibatch"] - 1) < 1e-5 for row in learner.history)
    assert "engine_mismatch" not in job.events
    # The sampler knows nothing of rows and masks: both compute the same log-probabilities.
    assert all(row["engine_mismatch"] < 1e-5 for row in learner.history)
    assert learner.history[0]["kl_sequence"] == 0.0
    assert min(row["kl_sequence"] for row in learner.history[-10:]) > 1.0


def test_shortness_is_learnt(tmp_path: Path) -> None:
    before, after, job, learner = train(tmp_path, shortness)
    assert before < -0.8
    assert after > -0.3
    assert learner.history[-1]["eos_rate"] > 0.9
    # And the run says that it may be too much of a good thing.
    assert "length_collapse" in job.events


def test_a_strong_kl_penalty_keeps_the_policy_near_the_reference(tmp_path: Path) -> None:
    base = tiny_llama(1)
    config = job_config(seed=1, steps=STEPS, kl={"schedule": "fixed", "beta": 5.0})
    learner = PpoLearner(MemoryJob(tmp_path, config, sampler(base, share_of_a_token)), base)
    learner.run()
    assert max(row["kl_sequence"] for row in learner.history) < 0.5
    assert learner.history[-1]["reward_mean"] < 0.3


def break_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    whiten = learner_module.whiten
    monkeypatch.setattr(learner_module, "whiten", lambda advantages, mask: -whiten(advantages, mask))


def break_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    def neighbours(rewards: Tensor, ended: Tensor, penalty: float) -> Tensor:
        return rewards.roll(1)

    monkeypatch.setattr(learner_module, "sequence_rewards", neighbours)


def break_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    # One to the left: the last token, where EOS is, does not count.
    def shifted(batches: Sequence[ExperienceBatch], *, row_tokens: int | None) -> Rollout:
        rollout = collate(batches, row_tokens=row_tokens)
        mask = rollout.response_mask.roll(-1, 1)
        mask[:, -1] = False
        return dataclasses.replace(rollout, response_mask=mask)

    monkeypatch.setattr(learner_module, "collate", shifted)


def break_source(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every token is predicted where it is read, not one before: old and new agree, so the ratio says nothing.
    def shifted(batches: Sequence[ExperienceBatch], *, row_tokens: int | None) -> Rollout:
        rollout = collate(batches, row_tokens=None)
        rows = [dataclasses.replace(row, source=row.source + 1) for row in rollout.rows]
        return dataclasses.replace(rollout, rows=rows)

    monkeypatch.setattr(learner_module, "collate", shifted)


Break = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("broken", "reward", "low"),
    [(break_advantages, share_of_a_token, 0.2), (break_advantages, shortness, -0.7), (break_rewards, shortness, -0.7)],
)
def test_nothing_is_learnt_from_wrong_advantages(
    broken: Break, reward: Reward, low: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken(monkeypatch)
    assert train(tmp_path, reward)[1] < low


@pytest.mark.parametrize("broken", [None, break_mask])
def test_the_last_token_is_learnt_with_the_right_mask_only(
    broken: Break | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if broken:
        broken(monkeypatch)
    before, after, _, _ = train(tmp_path, last_token, longest=2)
    assert before < 0.4
    assert after < 0.5 if broken else after > 0.8


def test_wrong_predicting_places_are_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Old and new agree, so the ratio says nothing; but the engine that sampled has other log-probabilities.
    break_source(monkeypatch)
    base = tiny_llama(1)
    job = MemoryJob(tmp_path, job_config(steps=1), sampler(base, shortness))
    PpoLearner(job, base).run()
    assert job.events[0] == "engine_mismatch"
    assert job.rows[1]["ratio_first_minibatch"] == pytest.approx(1)


@pytest.mark.parametrize("stale", [False, True])
def test_broken_old_logprobs_stop_the_run(stale: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(actor: Actor, rollout: Rollout, features: Mapping[int, Tensor], shares: Shares) -> Scored:
        scored = score_rollout(actor, rollout, features, shares)
        # The reference's are those of step 0: weights of another time. They are right once.
        noise = torch.full_like(scored.old_logprobs, 0.01)
        return dataclasses.replace(scored, old_logprobs=scored.ref_logprobs if stale else scored.old_logprobs + noise)

    monkeypatch.setattr(learner_module, "score_rollout", wrong)
    base = tiny_llama(1)
    learner = PpoLearner(MemoryJob(tmp_path, job_config(steps=STEPS), sampler(base, shortness)), base)
    with pytest.raises(RatioCheckFailed):
        learner.run()
    assert learner.step == (1 if stale else 0)
