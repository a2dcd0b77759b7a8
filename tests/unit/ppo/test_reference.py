"""The fast path against the slow one of reference.py: the pure functions on random numbers, then a whole step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf.lm.loading import LanguageModel
from services.trainer.ppo.advantages import gae
from services.trainer.ppo.advantages import whiten as fast_whiten
from services.trainer.ppo.learner import PpoLearner
from services.trainer.ppo.losses import policy_loss, value_loss
from services.trainer.ppo.rewards import leave_one_out, shape_rewards
from tests.unit.ppo import reference
from tests.unit.ppo.stand_in import MemoryJob, job_config, random_batch, sampler, tiny_gpt_neo, tiny_llama


def padded(rows: list[list[float]], width: int) -> torch.Tensor:
    # Junk outside the mask, so that whoever reads it is found out.
    return torch.tensor([row + [1e3] * (width - len(row)) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(20))
def test_rewards_advantages_and_whitening_on_random_numbers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, rng.integers(2, 9)).tolist()
    group = rng.integers(0, 3, len(lengths)).tolist()
    beta, gamma, lam = float(rng.uniform(0, 1)), float(rng.uniform(0.5, 1)), float(rng.uniform(0, 1))
    old, ref, values = ([rng.normal(size=n).tolist() for n in lengths] for _ in range(3))
    rewards = rng.normal(size=len(lengths)).tolist()

    centred = reference.centre(rewards, group)
    shaped = [reference.token_rewards(*row, beta) for row in zip(centred, old, ref, strict=True)]
    expected = [reference.advantages(*row, gamma, lam) for row in zip(shaped, values, strict=True)]
    whitened = reference.whiten(expected)

    width = max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    fast_centred = leave_one_out(torch.tensor(rewards, dtype=torch.float64), torch.tensor(group))
    fast_shaped = shape_rewards(fast_centred, padded(old, width), padded(ref, width), mask, beta)
    advantages, returns = gae(fast_shaped, padded(values, width), mask, gamma, lam)
    fast = fast_whiten(advantages, mask)
    assert fast_centred.tolist() == pytest.approx(centred)
    for i, n in enumerate(lengths):
        assert advantages[i, :n].tolist() == pytest.approx(expected[i])
        assert returns[i, :n].tolist() == pytest.approx([a + v for a, v in zip(expected[i], values[i], strict=True)])
        assert fast[i, :n].tolist() == pytest.approx(whitened[i])
        assert not torch.stack([advantages, returns, fast])[:, i, n:].any()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dual", [None, 1.5])
def test_losses_and_their_gradients_on_random_numbers(seed: int, dual: float | None) -> None:
    torch.manual_seed(seed)
    new, old, advantage, values, old_values, returns = torch.randn(6, 30, dtype=torch.float64).mul(0.5).unbind()
    weights = torch.rand(30, dtype=torch.float64) * 2
    new.requires_grad_()
    values.requires_grad_()
    expected = sum(
        reference.policy_term(new[i], float(old[i]), float(advantage[i]), float(weights[i]), 0.2, dual)
        + 0.1 * reference.value_term(values[i], float(old_values[i]), float(returns[i]), 0.2)
        for i in range(30)
    )
    (expected / 30).backward()
    wanted = new.grad.clone(), values.grad.clone()
    new.grad = values.grad = None
    loss = policy_loss(new, old, advantage, weights, 30, 0.2, dual).loss
    loss = loss + 0.1 * value_loss(values, old_values, returns, 30, 0.2)
    loss.backward()
    torch.testing.assert_close(loss, expected / 30, check_dtype=False, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(new.grad, wanted[0])
    torch.testing.assert_close(values.grad, wanted[1])


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt_neo])
@pytest.mark.parametrize(("plain", "full"), [(False, False), (True, False), (False, True)])
def test_a_step_of_the_learner(make: Callable[[], LanguageModel], plain: bool, full: bool, tmp_path: Path) -> None:
    # After three ordinary steps, when policy, reference and values differ, one step of one minibatch on a batch with
    # its own behaviour policy, in micro-batches, must start with the slow reference's losses and gradients.
    base = make()
    update = {"epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, "tokens_per_microbatch": 64, "gamma": 0.97}
    if plain:
        update |= {"baseline": "none", "whiten_advantages": False, "gamma": 1.0}
    penalties = {"missing_eos_penalty": 0.5, "repeated_ngram_penalty": 0.4, "repeated_ngram_size": 2}
    trained = {"full": {"top_layers": 2}} if full else {}
    rollout = {"temperature": 0.7, **penalties}
    config = job_config(update=update, kl={"schedule": "fixed", "beta": 0.3}, rollout=rollout, **trained)
    job = MemoryJob(tmp_path, config, sampler(base, lambda ids: float(ids[0] < 12)))
    learner = PpoLearner(job, base)
    job.config.steps = 3
    learner.run()
    batch = random_batch(11, prompts=4, samples=3, ids_in_use=4)
    assert any(any(reference.repeats(ids.tolist(), 2)) for ids in batch.response_ids)
    expected = reference.slow_step(learner.actor, batch, config, beta=0.3)
    metrics = learner.learn([batch])
    for name in (
        "policy_loss",
        "value_loss",
        "kl_sequence",
        "kl_token",
        "reward_mean",
        "explained_variance",
        "importance_mean",
        "entropy",
    ):
        assert metrics[name] == pytest.approx(getattr(expected, name), rel=1e-4, abs=1e-5), name
    assert abs(metrics["kl_sequence"]) > 1e-3
    assert metrics["ratio_first_minibatch"] == pytest.approx(1, abs=1e-5)
    for name, parameter in learner.actor.trainable().items():
        assert float(expected.gradients[name].abs().max()) > 0, name
        torch.testing.assert_close(
            parameter.grad, expected.gradients[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
