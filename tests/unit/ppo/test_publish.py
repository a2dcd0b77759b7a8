"""Full weights: which versions stay, the model at the end, and that a run killed anywhere leaves the same."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlhf.artifacts.folders import sha256, verify_manifest
from rlhf.contracts.rollout import RolloutTask
from rlhf.lm.loading import LanguageModel
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.ppo.learner import PpoLearner
from services.trainer.ppo.publish import oldest_needed
from tests.unit.ppo.reference import whole_model
from tests.unit.ppo.stand_in import job_config, sampler, tiny_llama
from tests.unit.ppo.test_resume import FragileJob, Killed, numbers, weights

STEPS = 5


@pytest.mark.parametrize(
    ("settings", "oldest"),
    [
        # On-policy: the newest two. Version 0 is the base model and no file.
        ({}, [0, 1, 2, 3, 4]),
        # Step 3 sampled ahead by 2 asks for version 1; after a crash, step N for version N - 2.
        ({"rollout": {"max_staleness": 2}}, [-1, 0, 1, 2, 3]),
        # Checkpoints after steps 3 and 5 (the last): before the first, a crash goes back to the base model.
        ({"checkpoint_every": 3}, [0, 0, 2, 3, 4]),
        ({"checkpoint_every": 3, "rollout": {"max_staleness": 1}}, [-1, -1, 2, 2, 4]),
    ],
)
def test_versions_that_rollouts_may_ask_for_stay(settings: dict, oldest: list[int]) -> None:
    config = job_config(steps=STEPS, full={}, **settings)
    assert [oldest_needed(config, step) for step in range(1, STEPS + 1)] == oldest


class Job(FragileJob):
    """Its rollouts are sampled by the model that the task names, as published; a missing version is an error."""

    def __init__(self, root: Path, **changes: object) -> None:
        super().__init__(root, job_config(steps=STEPS, full={"top_layers": 2}, **changes), self.draw)

    def draw(self, task: RolloutTask) -> ExperienceBatch:
        return sampler(self.policy(task.adapter), lambda ids: float(ids[0] < 12))(task)

    def policy(self, adapter: str | None) -> LanguageModel:
        model = tiny_llama()
        if adapter is not None:
            tensors = load_file(self.store.resolve("adapters", adapter) / "replaced.safetensors")
            model.model.load_state_dict(tensors, strict=False)
        return model

    def enqueue(self, tasks: list[RolloutTask]) -> None:
        # Whoever samples may be slow: what is asked for must be there until the step is learned.
        assert all(task.adapter is None or self.store.resolve("adapters", task.adapter) for task in tasks)
        super().enqueue(tasks)

    def attempt(self) -> PpoLearner:
        learner = PpoLearner(self, tiny_llama())
        learner.run()
        return learner

    def left(self) -> dict[str, str]:
        """sha256 of every file that others read."""
        roots = self.store.root / "adapters", self.folder / "model"
        return {
            str(path.relative_to(self.store.root)): sha256(path)
            for root in roots
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, [4, 5]), ({"checkpoint_every": 2, "rollout": {"max_staleness": 1}}, [4, 5])],
    ids=["on-policy", "ahead"],
)
def test_killed_again_and_again_a_run_leaves_what_one_that_is_not_leaves(
    settings: dict, kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, job = Job(tmp_path / "whole", **settings), Job(tmp_path / "killed", **settings)
    expected = whole.attempt()
    # Learned and not checkpointed; checkpointed and not published; published and not told; twice nothing done.
    for method, count in [("raise_if_lost", 2), ("acknowledge", 1), ("progress", 1), ("pull", 1), ("enqueue", 1)]:
        job.die_at(method, count, after=method != "progress")
        with pytest.raises(Killed):
            job.attempt()
        del vars(job)[method]
    # And while the last step's model is written.
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise Killed

        patch.setattr("services.trainer.ppo.full.FullWeights.save_model", die)
        with pytest.raises(Killed):
            job.attempt()
    learner = job.attempt()
    assert all(torch.equal(tensor, weights(learner)[name]) for name, tensor in weights(expected).items())
    for mine, other in zip(learner.optimizer.state.values(), expected.optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[key], other[key]) for key in other)
    assert numbers(learner) == numbers(expected)
    assert job.left() == whole.left()
    assert job.store.versions("adapters", "job") == kept
    assert learner.history[-1]["ratio_first_minibatch"] == pytest.approx(1, abs=1e-5)

    ids = torch.arange(12)[None]
    policy = whole_model(learner.actor, ids).logits
    assert float((policy - whole_model(learner.actor, ids, reference=True).logits).detach().abs().max()) > 0.01
    torch.testing.assert_close(job.policy("job@5").model(input_ids=ids).logits, policy)
    verify_manifest(job.folder / "model")
    final = AutoModelForCausalLM.from_pretrained(job.folder / "model")
    torch.testing.assert_close(final(input_ids=ids).logits, policy)
