"""What KEDA reads in Redis to scale the workers (deploy/k8s/components/keda) is kept there by the trainer."""

from typing import cast

from pydantic import SecretStr
from redis import Redis

from rlhf.contracts.jobs import JobState
from services.trainer.jobs.celery_app import LEARNER_QUEUE, create_celery, send_learn
from services.trainer.jobs.lease import acquire_lease
from services.trainer.jobs.store import JobStore
from services.trainer.settings import TrainerSettings
from tests.unit.deploy.manifests import named, render

READ = """
local kind = redis.call('type', KEYS[1]).ok
if kind == 'set' then return redis.call('scard', KEYS[1]) end
return redis.call('llen', KEYS[1])
"""
"""As KEDA's trigger `redis` does it: the size of a set, the length of anything else."""


def asked_of_redis(redis: Redis, worker: str = "learner") -> int:
    (trigger,) = named(render("cpu"), "ScaledObject", worker)["spec"]["triggers"]
    return cast(int, redis.eval(READ, 1, trigger["metadata"]["listName"]))


def test_a_job_holds_its_learner_from_its_submission_to_its_end(redis_url: str, redis_client: Redis) -> None:
    settings = TrainerSettings(redis_url=SecretStr(redis_url))
    jobs, app = JobStore(redis_client, settings), create_celery(settings)
    assert asked_of_redis(redis_client) == 0
    jobs.create("ppo-1", "ppo", 3)
    send_learn(app, "ppo-1")
    assert asked_of_redis(redis_client) == 1

    # A learner takes the message and the lease: the queue is empty, and the learner still needed.
    redis_client.lpop(LEARNER_QUEUE)
    lease = acquire_lease(redis_client, "ppo-1", "token", ttl_s=60, heartbeat_s=10)
    assert lease is not None
    assert jobs.begin("ppo-1", "token")
    assert redis_client.llen(LEARNER_QUEUE) == 0
    assert asked_of_redis(redis_client) == 1

    assert jobs.finish("ppo-1", JobState.SUCCEEDED, None, "token")
    lease.release()
    assert asked_of_redis(redis_client) == 0
    app.close()


def test_an_evaluation_calls_for_an_evaluation_worker_and_for_no_learner(redis_url: str, redis_client: Redis) -> None:
    jobs = JobStore(redis_client, TrainerSettings(redis_url=SecretStr(redis_url)))
    jobs.create("eval-1", "evaluation", 3)
    assert (asked_of_redis(redis_client, "evaluation"), asked_of_redis(redis_client)) == (1, 0)
    assert jobs.active() == ["eval-1"]
    jobs.request_cancel("eval-1")
    assert (asked_of_redis(redis_client, "evaluation"), jobs.active()) == (0, [])
