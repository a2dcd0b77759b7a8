import pytest

from rlhf.clients import follow
from rlhf.clients.follow import JobFailed, follow_job, run_job
from rlhf.contracts.jobs import JobEvent, JobState, JobStatus, PpoJobConfig

CONFIG = PpoJobConfig(kind="ppo", prompts=["x"], reward_model="rm-1@1")


def event(number: int) -> JobEvent:
    return JobEvent(id=str(number), time=0.0, kind="log", name="n", message=f"event {number}")


class Trainer:
    """A job that goes through given states; with each look two more events are there."""

    def __init__(self, states: list[JobState], reason: str | None = None) -> None:
        self.states, self.reason, self.looks = states, reason, 0

    def submit(self, config: PpoJobConfig) -> JobStatus:
        return self.status(JobState.QUEUED)

    def status(self, state: JobState) -> JobStatus:
        times = {"created_at": 0.0, "started_at": None, "finished_at": None}
        return JobStatus(
            id="ppo-1",
            kind="ppo",
            state=state,
            step=0,
            total_steps=1,
            progress=0,
            eta_s=None,
            last_metrics={},
            reason=self.reason,
            attempts=1,
            **times,
        )

    def job(self, job: str) -> JobStatus:
        self.looks += 1
        return self.status(self.states[self.looks - 1])

    def events(self, job: str, *, after: str | None = None) -> list[JobEvent]:
        first = int(after) + 1 if after else 0
        # One at a time, so that pages have to be turned.
        return [event(first)] if first < 2 * self.looks else []


class Watcher:
    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, event: JobEvent) -> None:
        self.told.append(event.id)

    def update(self, status: JobStatus) -> None:
        self.told.append(status.state)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.0)


def test_every_event_is_told_once_and_before_the_state_that_follows_it() -> None:
    watcher = Watcher()
    trainer = Trainer([JobState.RUNNING, JobState.SUCCEEDED])
    status, events = run_job(trainer, CONFIG, watcher, lambda: None)
    assert status.state is JobState.SUCCEEDED
    assert watcher.told == ["0", "1", "running", "2", "3", "succeeded"]
    assert [each.id for each in events] == ["0", "1", "2", "3"]


def test_a_failed_job_gives_its_reason() -> None:
    trainer = Trainer([JobState.FAILED], reason="step 3: not finite")
    with pytest.raises(JobFailed, match=r"job ppo-1 \(ppo\) failed: step 3: not finite"):
        run_job(trainer, CONFIG, Watcher(), lambda: None)


def test_a_job_of_ones_own_that_pauses_has_nobody_to_resume_it() -> None:
    trainer = Trainer([JobState.RUNNING, JobState.PAUSED], reason="reward is ill; mend it")
    with pytest.raises(JobFailed, match=r"paused: reward is ill; mend it"):
        run_job(trainer, CONFIG, Watcher(), lambda: None)


def test_a_paused_job_is_watched_until_it_is_resumed_and_ends() -> None:
    trainer = Trainer([JobState.PAUSED, JobState.RUNNING, JobState.SUCCEEDED])
    status, _ = follow_job(trainer, "ppo-1", Watcher(), lambda: None)
    assert status.state is JobState.SUCCEEDED


def test_a_check_that_raises_ends_the_following() -> None:
    def check() -> None:
        raise RuntimeError("learner died")

    with pytest.raises(RuntimeError, match="learner died"):
        run_job(Trainer([]), CONFIG, Watcher(), check)
