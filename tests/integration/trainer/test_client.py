"""The trainer's client against the real API process and a real learner worker."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.clients.http import Retries
from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.errors import Conflict, InvalidInput, NotFound, Unavailable
from rlhf.contracts.jobs import JobEvent, JobState, PpoJobConfig
from rlhf.local.redis import free_port
from tests.integration.trainer.conftest import ApiProcess, Worker

Start = Callable[..., Worker]


def config(**changes: object) -> PpoJobConfig:
    return PpoJobConfig.model_validate(
        {"kind": "ppo", "prompts": ["count"], "reward_model": "rm@1", "steps": 3, **changes}
    )


def test_a_job_is_submitted_followed_and_fetched(api_process: ApiProcess, start: Start, tmp_path: Path) -> None:
    start("learner").ready()
    with TrainerClient(api_process.url) as trainer:
        assert trainer.ready()
        job = trainer.submit(config())
        told: list[JobEvent] = []
        status = trainer.wait(job.id, told.append)
        assert (status.state, status.step) == (JobState.SUCCEEDED, 3)
        assert [event.name for event in told] == ["queued", "running", *["progress"] * 3, "accepted", "succeeded"]
        assert trainer.events(job.id) == told
        assert trainer.events(job.id, after=told[3].id) == told[4:]
        assert list(trainer.follow(job.id, after=told[3].id)) == told[4:]
        assert [row["step"] for row in trainer.metrics(job.id).rows] == [1, 2, 3]
        assert [each.id for each in trainer.jobs(JobState.SUCCEEDED)] == [job.id]
        paths = [Path(file.path) for file in trainer.artifacts(job.id)]
        assert {str(path) for path in paths if len(path.parts) == 1} == {
            "config.json",
            "metrics.jsonl",
            "checkpoint",
            "record.json",
        }
        assert {path.parent.name for path in paths if len(path.parts) > 1} == {"tensorboard", "decisions"}
        assert trainer.artifact(job.id, "checkpoint") == b"3"
        trainer.download(job.id, "checkpoint", tmp_path / "out" / "checkpoint")
        assert (tmp_path / "out/checkpoint").read_bytes() == b"3"
        with pytest.raises(NotFound):
            trainer.download(job.id, "nothing", tmp_path / "out" / "nothing")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint"]


def test_errors_of_the_server_are_raised_by_their_type(api_process: ApiProcess) -> None:
    with TrainerClient(api_process.url) as trainer:
        with pytest.raises(InvalidInput, match="rm@9"):
            trainer.submit(config(reward_model="rm@9"))
        with pytest.raises(NotFound, match="ppo-0"):
            trainer.job("ppo-0")
        job = trainer.submit(config(), key="k").id
        assert trainer.submit(config(), key="k").id == job
        with pytest.raises(Conflict, match=job):
            trainer.submit(config(steps=4), key="k")
        assert trainer.cancel(job).state == JobState.CANCELLED
        with pytest.raises(Conflict, match="cancelled"):
            trainer.cancel(job)
        with pytest.raises(NotFound):
            trainer.artifact(job, "../config.json")


def test_following_survives_a_restart_of_the_api(api_process: ApiProcess, start: Start) -> None:
    with TrainerClient(api_process.url, retries=Retries(attempts=20, longest_delay_s=0.5)) as trainer:
        job = trainer.submit(config(steps=10)).id
        names: list[str] = []
        waited = threading.Thread(target=lambda: names.extend(event.name for event in trainer.follow(job)))
        waited.start()
        assert api_process.stop() == 0
        api_process.start()
        start("learner").ready()
        waited.join(60)
        assert names == ["queued", "running", *["progress"] * 10, "accepted", "succeeded"]


def test_an_absent_api_is_unavailable() -> None:
    with TrainerClient(f"http://127.0.0.1:{free_port()}", retries=Retries(attempts=1)) as trainer:
        assert not trainer.ready()
        with pytest.raises(Unavailable, match="is it running"):
            trainer.job("ppo-1")
