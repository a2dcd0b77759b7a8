"""Full fine-tuning between learner and policy: the engine with a published version says what the learner says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.jobs import FullConfig
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import load_language_model
from services.policy.engine.engine import Engine
from services.policy.engine.rows import Extras, Row
from services.policy.loading import load_engine
from services.policy.settings import PolicySettings
from services.trainer.ppo.actor import Actor
from services.trainer.ppo.collate import collate
from tests.tiny_models import save_tiny_gpt_neo, save_tiny_llama
from tests.unit.ppo.stand_in import make_batch

PROMPTS = [[5, 9, 77, 130, 9], [200], [33, 34, 35, 36, 37, 38, 39, 40]]
TOKENS, TAU = 12, 0.7


@contextmanager
def serving(model: Path, store: ArtifactStore) -> Iterator[Engine]:
    engine = load_engine(PolicySettings(model=str(model), threads=1), store)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def say(engine: Engine, adapter: str | None, temperature: float) -> list[Row]:
    sampling = SamplingParams(max_new_tokens=TOKENS, min_new_tokens=TOKENS, temperature=temperature, seed=3)
    return engine.submit(PROMPTS, sampling, adapter, Extras(model_logprobs=True)).outcome.result(300).rows


def learner_logprobs(actor: Actor, rows: list[Row], *, reference: bool = False) -> Tensor:
    """[B, T] of the engine's tokens, through the learner's packed rows and its split forward pass."""
    batch = make_batch([row.prompt_ids for row in rows], [[row.token_ids] for row in rows])
    rollout = collate([batch], row_tokens=1000 if actor.stack.packs else None)
    with torch.no_grad():
        outputs = actor(rollout.rows, actor.lower_features(rollout.rows), rollout.response_ids, reference=reference)
    grid = torch.zeros(rollout.response_ids.shape)
    grid[outputs.sample, outputs.offset] = outputs.logprobs
    return grid


@pytest.mark.parametrize("save", [save_tiny_llama, save_tiny_gpt_neo])
@pytest.mark.parametrize("top_layers", [2, None])
def test_the_policy_computes_what_the_learner_computes(
    save: Callable[[Path], Path], top_layers: int | None, tmp_path: Path
) -> None:
    model, store = save(tmp_path / "model"), ArtifactStore(tmp_path / "store")
    actor = Actor(load_language_model(str(model)), FullConfig(top_layers=top_layers), temperature=TAU, seed=0)
    generator = torch.Generator().manual_seed(1)
    for version in (1, 2):
        with torch.no_grad():
            for parameter in actor.trainable().values():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        store.publish("adapters", "job", version, partial(actor.trained.save, weights=actor.trained.weights()))
    actor.trained.save_model(tmp_path / "final", {**actor.trained.weights(), **actor.trained.untouched()})
    with serving(model, store) as engine:
        base, first, second = (say(engine, ref, TAU) for ref in (None, "job@1", "job@2"))
        again = say(engine, "job@2", TAU)
        greedy = say(engine, "job@2", 0.0)
        assert engine.adapters == ["job@1", "job@2"]
    for rows, reference in ((second, False), (base, True)):
        served = torch.tensor([row.model_logprobs for row in rows])
        torch.testing.assert_close(learner_logprobs(actor, rows, reference=reference), served, rtol=0, atol=1e-4)
    assert [row.token_ids for row in again] == [row.token_ids for row in second]
    assert len({tuple(rows[0].token_ids) for rows in (base, first, second)}) == 3, "the versions differ"
    # And the folder that the job leaves, served as a base model.
    with serving(tmp_path / "final", store) as engine:
        assert [row.token_ids for row in say(engine, None, 0.0)] == [row.token_ids for row in greedy]
