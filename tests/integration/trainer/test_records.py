"""Leases, job records and the reconciler on a real Redis."""

import time
from collections.abc import Iterator

import pytest
from celery import Celery
from redis import Redis

from rlhf.contracts.errors import Conflict, NotFound
from rlhf.contracts.jobs import JobState
from services.trainer.jobs.celery_app import create_celery, send_learn, waiting
from services.trainer.jobs.lease import Lease, LeaseLost, acquire_lease, lease_held
from services.trainer.jobs.reconciler import reconcile
from services.trainer.jobs.store import JobStore
from services.trainer.settings import ApiSettings
from tests.integration.trainer.conftest import wait_for


def take(redis: Redis, token: str, *, ttl_s: float = 60, heartbeat_s: float = 20) -> Lease | None:
    return acquire_lease(redis, "job", token, ttl_s=ttl_s, heartbeat_s=heartbeat_s)


def test_one_holder_at_a_time(redis_client: Redis) -> None:
    lease = take(redis_client, "a")
    assert lease is not None
    assert take(redis_client, "b") is None
    lease.check()
    lease.release()
    assert not lease_held(redis_client, "job")
    second = take(redis_client, "b")
    assert second is not None
    second.release()


def test_a_heartbeat_keeps_it_longer_than_its_expiry(redis_client: Redis) -> None:
    with acquire_lease(redis_client, "job", "a", ttl_s=0.4, heartbeat_s=0.05) as lease:
        renewals = 0
        while renewals < 20:
            time.sleep(0.05)
            lease.check()
            renewals += 1
        assert redis_client.get("lease:job") == b"a"


def test_without_heartbeats_it_expires(redis_client: Redis) -> None:
    dead = take(redis_client, "a", ttl_s=0.1, heartbeat_s=0.05)
    assert dead is not None
    dead._end_heartbeat()
    wait_for(lambda: not lease_held(redis_client, "job"))
    with pytest.raises(LeaseLost, match="not renewed"):
        dead.check()


def test_the_lease_of_another_is_neither_renewed_nor_released(redis_client: Redis) -> None:
    lease = take(redis_client, "a", ttl_s=60, heartbeat_s=0.05)
    assert lease is not None
    redis_client.set("lease:job", "b", px=60_000)

    def lost() -> bool:
        try:
            lease.check()
        except LeaseLost:
            return True
        return False

    wait_for(lost)
    lease.release()
    assert redis_client.get("lease:job") == b"b"
    assert redis_client.pttl("lease:job") <= 60_000


def test_work_that_pauses_keeps_its_lease_for_the_same_token(redis_client: Redis) -> None:
    with take(redis_client, "a") as lease:
        lease.leave(30)
    assert 29_000 < redis_client.pttl("lease:job") <= 30_000
    assert take(redis_client, "b") is None
    again = take(redis_client, "a")
    assert again is not None
    again.release()


@pytest.fixture
def settings(redis_url: str) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, reconcile_s=0.001, enqueue_grace_s=0.0, max_crashes=1)


@pytest.fixture
def jobs(redis_client: Redis, settings: ApiSettings) -> JobStore:
    return JobStore(redis_client, settings)


@pytest.fixture
def app(settings: ApiSettings) -> Iterator[Celery]:
    app = create_celery(settings)
    yield app
    app.close()


def state(jobs: JobStore, job: str) -> str:
    return jobs.status(job).state.value


def test_states_move_only_along_their_arrows(jobs: JobStore, redis_client: Redis) -> None:
    jobs.create("job", "ppo", 5)
    redis_client.set("lease:job", "t")
    assert not jobs.requeue("job", "queued already")
    assert jobs.begin("job", "t")
    assert state(jobs, "job") == "running"
    assert jobs.requeue("job", "stopped", token="t")
    assert (state(jobs, "job"), jobs.status("job").reason) == ("queued", None)
    assert jobs.begin("job", "t")
    assert jobs.finish("job", JobState.FAILED, "why", "t")
    for move in (
        lambda: jobs.begin("job", "t"),
        lambda: jobs.requeue("job", "x", token="t"),
        lambda: jobs.finish("job", JobState.SUCCEEDED, None, "t"),
    ):
        assert not move()
    status = jobs.status("job")
    assert (status.state, status.reason, status.attempts) == (JobState.FAILED, "why", 2)
    with pytest.raises(Conflict, match="failed"):
        jobs.request_cancel("job")


def test_without_the_lease_a_worker_changes_nothing(jobs: JobStore, redis_client: Redis) -> None:
    jobs.create("job", "ppo", 5)
    redis_client.set("lease:job", "mine")
    jobs.begin("job", "mine")
    redis_client.set("lease:job", "theirs")
    for move in (
        lambda: jobs.begin("job", "mine"),
        lambda: jobs.requeue("job", "x", token="mine"),
        lambda: jobs.finish("job", JobState.SUCCEEDED, None, "mine"),
    ):
        with pytest.raises(LeaseLost):
            move()
    assert state(jobs, "job") == "running"


def test_time_left_is_the_pace_times_the_steps_left(jobs: JobStore, redis_client: Redis) -> None:
    jobs.create("job", "ppo", 10)
    redis_client.set("lease:job", "t")
    jobs.begin("job", "t")
    jobs.progress("job", 4, 10, {"kl": 0.1}, None)
    assert jobs.status("job").eta_s is None
    jobs.progress("job", 5, 10, {"kl": 0.2}, 1000.0)
    status = jobs.status("job")
    # 5 steps of 1000 s, less the moment since the last one.
    assert status.eta_s == pytest.approx(5000, abs=60)
    assert (status.step, status.progress, status.last_metrics) == (5, 0.5, {"kl": 0.2})


def test_an_ended_job_expires_from_redis_and_from_the_list(jobs: JobStore, redis_client: Redis) -> None:
    jobs.create("job", "ppo", 1)
    jobs.finish("job", JobState.CANCELLED, None, None)
    assert jobs.active() == []
    assert 0 < redis_client.ttl("job:job") <= 30 * 86400
    redis_client.delete("job:job")
    assert jobs.recent(None, None, 10) == []
    with pytest.raises(NotFound):
        jobs.status("job")


def test_only_jobs_without_message_and_lease_are_queued_again(
    jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings
) -> None:
    for job in ("waits", "forgotten", "runs", "orphan"):
        jobs.create(job, "ppo", 1)
    send_learn(app, "waits")
    for job in ("runs", "orphan"):
        redis_client.set(f"lease:{job}", "t")
        jobs.begin(job, "t")
    redis_client.delete("lease:orphan")
    assert reconcile(redis_client, jobs, app, settings) == ["orphan", "forgotten"]
    assert waiting(redis_client, "learner") == {"waits", "forgotten", "orphan"}
    assert (state(jobs, "runs"), state(jobs, "orphan")) == ("running", "queued")
    time.sleep(0.01)
    assert reconcile(redis_client, jobs, app, settings) == []
    assert redis_client.llen("learner") == 3


def test_the_queue_is_in_order_of_priority_then_of_age(jobs: JobStore, redis_client: Redis) -> None:
    for job, priority in (("a", 0), ("b", 5), ("c", -10), ("d", 5), ("e", 0), ("f", 10)):
        jobs.create(job, "ppo", 1, priority=priority)
    redis_client.set("lease:f", "t")
    jobs.begin("f", "t")
    assert jobs.queue() == ["b", "d", "a", "e", "c"]
    assert jobs.requeue("f", "its learner died", crashed=True)
    assert jobs.queue() == ["f", "b", "d", "a", "e", "c"]
    jobs.request_pause("b")
    assert jobs.queue()[:2] == ["f", "d"]
    jobs.request_resume("b")
    assert jobs.queue()[:3] == ["f", "b", "d"], "it keeps its priority and its age"
    assert [each.priority for each in jobs.recent(None, None, 10)] == [10, 0, 5, -10, 5, 0]


def test_a_message_that_sent_a_learner_to_another_job_is_not_lost(
    jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings
) -> None:
    # Two jobs, two messages: the first one's message was used for the second, whose message is left for the first.
    for job in ("first", "second"):
        jobs.create(job, "ppo", 1)
    send_learn(app, "second")
    redis_client.set("lease:second", "t")
    jobs.begin("second", "t")
    assert reconcile(redis_client, jobs, app, settings) == []
    redis_client.delete("learner")
    time.sleep(0.01)
    assert reconcile(redis_client, jobs, app, settings) == ["first"]


def test_a_pause_with_a_reason_needs_no_wish(jobs: JobStore, redis_client: Redis) -> None:
    jobs.create("job", "ppo", 5)
    redis_client.set("lease:job", "t")
    jobs.begin("job", "t")
    assert not jobs.pause("job", "t"), "nobody asked for it"
    assert jobs.pause("job", "t", "reward is ill; mend it")
    status, moved = jobs.request_resume("job")
    assert (status.state, status.reason, moved) == (JobState.QUEUED, None, True)


def test_a_queued_job_has_some_time_before_it_counts_as_lost(
    jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings
) -> None:
    jobs.create("new", "ppo", 1)
    patient = settings.model_copy(update={"enqueue_grace_s": 600.0})
    assert reconcile(redis_client, jobs, app, patient) == []


def test_one_reconciler_at_a_time(jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings) -> None:
    jobs.create("forgotten", "ppo", 1)
    slow = settings.model_copy(update={"reconcile_s": 600.0})
    assert reconcile(redis_client, jobs, app, slow) == ["forgotten"]
    redis_client.delete("learner")
    assert reconcile(redis_client, jobs, app, slow) == []


def test_a_job_that_keeps_killing_its_learner_fails(
    jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings
) -> None:
    # max_crashes=1: a second death without a step in between is one too many; a step done forgives the first.
    jobs.create("job", "ppo", 5)

    def die() -> None:
        redis_client.set("lease:job", "t")
        jobs.begin("job", "t")
        redis_client.delete("lease:job")

    def look() -> list[str]:
        time.sleep(0.01)
        return reconcile(redis_client, jobs, app, settings)

    die()
    assert look() == ["job"]
    jobs.progress("job", 1, 5, {}, None)
    die()
    assert look() == ["job"]
    die()
    assert look() == []
    status = jobs.status("job")
    assert status.state == JobState.FAILED
    assert status.reason is not None
    assert "died 2 times" in status.reason


def test_a_cancelled_job_whose_learner_died_is_cancelled(
    jobs: JobStore, app: Celery, redis_client: Redis, settings: ApiSettings
) -> None:
    jobs.create("job", "ppo", 5)
    redis_client.set("lease:job", "t")
    jobs.begin("job", "t")
    jobs.request_cancel("job")
    assert state(jobs, "job") == "running"
    redis_client.delete("lease:job")
    assert reconcile(redis_client, jobs, app, settings) == []
    assert state(jobs, "job") == "cancelled"


def test_events_are_bounded(jobs: JobStore, redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.trainer.jobs.store.MAX_EVENTS", 200)
    jobs.create("job", "ppo", 5)
    for number in range(1000):
        jobs.add_event("job", "log", "info", "n", str(number), {})
    # Redis trims whole nodes of 100 entries.
    assert 200 <= redis_client.xlen("job:job:events") <= 300
    assert jobs.events("job", None, 1000)[-1].message == "999"
