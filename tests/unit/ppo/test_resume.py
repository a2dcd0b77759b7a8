"""A run that is interrupted anywhere ends with the weights of one that is not."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import rlhf.artifacts.folders as folders_module
import services.trainer.ppo.checkpoint as checkpoint_module
from rlhf.artifacts.folders import sha256, write_manifest
from rlhf.contracts.errors import Conflict
from rlhf.contracts.rollout import RolloutTask
from rlhf.lm.loading import LanguageModel
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.jobs.handle import ServicesFailed
from services.trainer.ppo.learner import PpoLearner, run_ppo
from tests.unit.ppo.stand_in import MemoryJob, job_config, sampler, tiny_llama

STEPS = 4


class Killed(BaseException):
    """The process ended here."""


class FragileJob(MemoryJob):
    """Dies once, when the chosen method is called for the n-th time, before or after it did its work."""

    base: LanguageModel

    def die_at(self, method: str, count: int, *, after: bool) -> None:
        work, calls = getattr(self, method), [0]

        def fragile(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == count and not after:
                raise Killed
            result = work(*args, **kwargs)
            if calls[0] == count:
                raise Killed
            return result

        setattr(self, method, fragile)


def make_job(root: Path, **changes: object) -> FragileJob:
    changes.setdefault("rollout", {"shards": 2})
    config = job_config(steps=STEPS, kl={"schedule": "adaptive", "beta": 0.05}, **changes)
    # The rollouts sample the model as it is: a difference in the weights would become one in the data.
    job = FragileJob(root, config, lambda task: sampler(job.base, lambda ids: float(ids[0] < 12))(task))
    return job


def attempt(job: FragileJob) -> PpoLearner:
    """A new process: everything is made anew, but the job's folder, its store and its batches stay."""
    job.base = tiny_llama()
    learner = PpoLearner(job, job.base)
    learner.run()
    return learner


def weights(learner: PpoLearner) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in learner.actor.trainable().items()}


def adapters(job: FragileJob) -> dict[int, list[str]]:
    """sha256 of the files of every published version."""
    return {
        version: [sha256(path) for path in sorted(job.store.resolve("adapters", f"job@{version}").iterdir())]
        for version in job.store.versions("adapters", "job")
    }


def numbers(learner: PpoLearner) -> list[dict[str, float]]:
    """The metrics but for times."""
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "per_s"))} for row in learner.history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FragileJob, PpoLearner]:
    job = make_job(tmp_path_factory.mktemp("undisturbed"))
    return job, attempt(job)


def assert_same_end(job: FragileJob, learner: PpoLearner, expected: tuple[FragileJob, PpoLearner]) -> None:
    wanted_job, wanted = expected
    got, want = weights(learner), weights(wanted)
    assert all(torch.equal(got[name], tensor) for name, tensor in want.items())
    for a, b in zip(learner.optimizer.state.values(), wanted.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in b)
    assert learner.kl.state() == wanted.kl.state()
    assert numbers(learner) == numbers(wanted)
    assert adapters(job) == adapters(wanted_job)
    assert sorted(adapters(job)) == [1, 2, 3, 4]
    assert sorted(job.rows) == sorted(wanted_job.rows) == [1, 2, 3, 4]


def test_two_undisturbed_runs_are_the_same(undisturbed: tuple[FragileJob, PpoLearner], tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert_same_end(job, attempt(job), undisturbed)
    assert job.acknowledged == [f"job:{step}:{shard}" for step in range(STEPS) for shard in range(2)]


# A step begins with raise_if_stopped; raise_if_lost is called once it has learned.
PLACES = [
    ("raise_if_stopped", 1, False),
    ("raise_if_stopped", 3, False),
    ("raise_if_lost", 3, False),
    ("enqueue", 3, True),
    ("pull", 2, True),
    ("acknowledge", 3, False),
    ("acknowledge", 4, True),
    ("progress", 2, False),
    ("progress", 4, False),
]


@pytest.mark.parametrize(("method", "count", "after"), PLACES)
def test_interrupted_anywhere_it_ends_the_same(
    method: str, count: int, after: bool, undisturbed: tuple[FragileJob, PpoLearner], tmp_path: Path
) -> None:
    job = make_job(tmp_path)
    job.die_at(method, count, after=after)
    with pytest.raises(Killed):
        attempt(job)
    assert_same_end(job, attempt(job), undisturbed)


@pytest.mark.parametrize("module", [folders_module, checkpoint_module], ids=["adapter", "checkpoint"])
def test_interrupted_while_writing_it_ends_the_same(
    module: ModuleType, undisturbed: tuple[FragileJob, PpoLearner], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job, folders = make_job(tmp_path), []

    def dying(folder: Path) -> None:
        # The manifest is the last file; the rename, which makes the folder appear, comes after it.
        folders.append(folder)
        if len(folders) == 3:
            raise Killed
        write_manifest(folder)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", dying)
        with pytest.raises(Killed):
            attempt(job)
    assert_same_end(job, attempt(job), undisturbed)


@pytest.mark.parametrize(
    ("method", "count"), [("raise_if_lost", 1), ("raise_if_stopped", 3), ("raise_if_stopped", 4), ("raise_if_lost", 4)]
)
def test_checkpoints_every_other_step_lose_nothing_either(
    method: str, count: int, undisturbed: tuple[FragileJob, PpoLearner], tmp_path: Path
) -> None:
    job = make_job(tmp_path, checkpoint_every=2)
    job.die_at(method, count, after=False)
    with pytest.raises(Killed):
        attempt(job)
    # Either method's n-th call comes when n - 1 steps are done; whole pairs of steps are acknowledged.
    done = (count - 1) // 2 * 2
    assert job.acknowledged == [f"job:{step}:{shard}" for step in range(done) for shard in range(2)]
    assert_same_end(job, attempt(job), undisturbed)


def test_interrupted_again_and_again(undisturbed: tuple[FragileJob, PpoLearner], tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for method, count in [("pull", 1), ("acknowledge", 1), ("progress", 1), ("pull", 1), ("raise_if_lost", 2)]:
        vars(job).pop(method, None)
        job.die_at(method, count, after=True)
        with pytest.raises(Killed):
            attempt(job)
        vars(job).pop(method, None)
    assert_same_end(job, attempt(job), undisturbed)


def test_sampled_ahead_it_ends_the_same_too(tmp_path: Path) -> None:
    ahead = {"rollout": {"shards": 2, "max_staleness": 1}}
    job, whole = make_job(tmp_path / "a", **ahead), make_job(tmp_path / "b", **ahead)
    for each in (job, whole):
        # Sampled when it is asked for, by the weights of that time.
        each.enqueue = lambda tasks, each=each: (MemoryJob.enqueue(each, tasks), each.pull(tasks[0].step, 2))
    expected = attempt(whole)
    for method, count in [("raise_if_lost", 1), ("acknowledge", 2), ("enqueue", 2)]:
        undo = getattr(job, method)
        job.die_at(method, count, after=True)
        with pytest.raises(Killed):
            attempt(job)
        setattr(job, method, undo)
    assert_same_end(job, attempt(job), (whole, expected))


@pytest.mark.parametrize(("checkpoint_every", "ill_step"), [(1, 0), (1, 2), (2, 3)])
def test_paused_for_samples_without_scores_and_resumed_it_ends_the_same(
    checkpoint_every: int, ill_step: int, undisturbed: tuple[FragileJob, PpoLearner], tmp_path: Path
) -> None:
    job = make_job(tmp_path, checkpoint_every=checkpoint_every)
    healthy, made = job.sample, []

    def ill(task: RolloutTask) -> ExperienceBatch:
        made.append(task.batch_id)
        batch = healthy(task)
        if (task.step, task.shard) == (ill_step, 1):
            return dataclasses.replace(batch, failures=["not scored: reward answered 503"] * len(batch))
        return batch

    job.sample = ill
    for _ in range(2):  # resumed too early, it pauses again
        with pytest.raises(ServicesFailed, match=f"step {ill_step}: 33% of the samples failed"):
            attempt(job)
    job.sample = healthy
    assert_same_end(job, attempt(job), undisturbed)
    assert [made.count(f"job:{ill_step}:{shard}") for shard in range(2)] == [1, 2], "the healthy shard is made once"


def test_a_finished_run_that_is_run_again_does_nothing(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first = weights(attempt(job))
    published, pulled = adapters(job), len(job.batches)

    def pull(step: int, shards: int) -> list[ExperienceBatch]:
        raise AssertionError("nothing is left to learn")

    job.pull = pull
    again = attempt(job)
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(again).items())
    assert (adapters(job), len(job.batches)) == (published, pulled)


def test_the_base_model_is_given_back_however_the_run_ends(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.base = base = tiny_llama()
    names = list(base.model.state_dict())

    def ends(run: Callable[[], None], error: type[BaseException] | None) -> None:
        if error is None:
            run()
        else:
            with pytest.raises(error):
                run()
        assert list(base.model.state_dict()) == names

    job.die_at("pull", 2, after=True)
    ends(lambda: run_ppo(job, base), Killed)
    # A damaged checkpoint fails the resume, before the first step.
    damaged = job.folder / "checkpoints" / "step-00000001" / "state.json"
    content = damaged.read_text()
    damaged.write_text(content + " ")
    ends(lambda: run_ppo(job, base), Conflict)
    damaged.write_text(content)
    ends(lambda: run_ppo(job, base), None)
