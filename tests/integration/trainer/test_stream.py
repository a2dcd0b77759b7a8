"""The experience stream on a real Redis: once in, read until acknowledged, gone afterwards."""

import threading

import numpy as np
import pytest
from redis import Redis

from rlhf.contracts.jobs import JobState
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.reward import Aggregation
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.batch import ExperienceBatch
from services.trainer.experience.collector import Collector, RolloutFailed, ServicesFailed
from services.trainer.experience.stream import ExperienceStream, Failure
from services.trainer.jobs.store import JobStore
from services.trainer.settings import TrainerSettings


def batch(step: int = 0, shard: int = 0, reward: float = 0.0) -> ExperienceBatch:
    one = np.array([reward], np.float32)
    return ExperienceBatch(
        batch_id=f"job:{step}:{shard}",
        job="job",
        step=step,
        shard=shard,
        policy_version=step,
        group=np.zeros(1, np.int32),
        prompt_ids=[np.array([1], np.int32)],
        response_ids=[np.array([2], np.int32)],
        behavior_logprobs=[np.array([-1], np.float32)],
        ended=np.ones(1, np.bool_),
        rewards=one,
        scores=one,
        uncertainty=one,
        members=one[None],
        responses=["r"],
        prompts=["p"],
    )


def task(step: int, shard: int) -> RolloutTask:
    return RolloutTask(
        job="job",
        step=step,
        shard=shard,
        policy_version=step,
        adapter=None,
        prompts=["p"],
        sampling=SamplingParams(seed=1),
        reward_model="rm@1",
        aggregation=Aggregation(),
    )


@pytest.fixture
def jobs(redis_client: Redis) -> JobStore:
    """With one live job, `job`."""
    jobs = JobStore(redis_client, TrainerSettings(experience_ttl_s=100))
    jobs.create("job", "ppo", 3)
    return jobs


@pytest.fixture
def stream(jobs: JobStore, redis_client: Redis) -> ExperienceStream:
    return ExperienceStream(redis_client, "job")


def collector(
    stream: ExperienceStream, sent: list[RolloutTask] | None = None, alive: set[str] | None = None
) -> Collector:
    """Looks for lost tasks after every wait of 10 ms."""
    known = alive if alive is not None else set()
    send = (sent if sent is not None else []).extend
    return Collector(stream, send, lambda ids: known & set(ids), look_s=0.0, block_ms=10)


def test_a_batch_is_pushed_once(stream: ExperienceStream, redis_client: Redis) -> None:
    assert stream.push(batch(reward=1.0))
    assert not stream.push(batch(reward=2.0))
    assert redis_client.xlen("experience:job") == 1
    assert stream.seen(["job:0:0", "job:0:1"]) == {"job:0:0"}
    (pulled,) = collector(stream).pull(0, 1, lambda: None)
    assert pulled.rewards.tolist() == [1.0]


def test_many_workers_push_the_same_batch_and_one_is_kept(stream: ExperienceStream, redis_client: Redis) -> None:
    pushed: list[bool] = []
    threads = [threading.Thread(target=lambda: pushed.append(stream.push(batch()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pushed) == [False] * 7 + [True]
    assert redis_client.xlen("experience:job") == 1


def test_a_batch_of_an_ended_or_unknown_job_is_not_kept(
    stream: ExperienceStream, jobs: JobStore, redis_client: Redis
) -> None:
    jobs.finish("job", JobState.CANCELLED, None, None)
    assert not stream.push(batch())
    stream.record_failure("job:0:0", Failure("too late", mendable=False))
    assert not ExperienceStream(redis_client, "other").push(batch())
    assert redis_client.keys("experience:*") == []


def test_batches_come_in_shard_order_and_stay_until_acknowledged(stream: ExperienceStream, redis_client: Redis) -> None:
    for shard in (2, 0, 1):
        stream.push(batch(shard=shard, reward=shard))
    learner = collector(stream)
    batches = learner.pull(0, 3, lambda: None)
    assert [each.rewards.tolist() for each in batches] == [[0.0], [1.0], [2.0]]
    assert redis_client.xlen("experience:job") == 3
    learner.acknowledge(batches)
    assert redis_client.xlen("experience:job") == 0
    assert redis_client.xpending("experience:job", "learner")["pending"] == 0
    assert not stream.push(batch()), "acknowledged is not forgotten"


def test_a_new_attempt_gets_what_the_old_one_read_and_did_not_acknowledge(stream: ExperienceStream) -> None:
    stream.push(batch(reward=1.0))
    assert len(collector(stream).pull(0, 1, lambda: None)) == 1
    (again,) = collector(stream).pull(0, 1, lambda: None)
    assert again.rewards.tolist() == [1.0]


def test_a_new_attempt_clears_batches_that_its_checkpoint_contains(
    stream: ExperienceStream, redis_client: Redis
) -> None:
    # The learner died after the checkpoint of step 0 and before its acknowledgement, with step 1 already read.
    stream.push(batch(step=0))
    stream.push(batch(step=1))
    collector(stream).pull(0, 1, lambda: None)
    resumed = collector(stream)
    (second,) = resumed.pull(1, 1, lambda: None)
    assert second.step == 1
    assert redis_client.xlen("experience:job") == 1
    resumed.acknowledge([second])
    assert redis_client.xlen("experience:job") == 0


def test_batches_of_a_later_step_wait_for_their_turn(stream: ExperienceStream) -> None:
    stream.push(batch(step=1))
    stream.push(batch(step=0))
    learner = collector(stream)
    assert [each.step for each in learner.pull(0, 1, lambda: None)] == [0]
    assert [each.step for each in learner.pull(1, 1, lambda: None)] == [1]


def test_waiting_ends_when_the_check_raises(stream: ExperienceStream) -> None:
    checks = iter([None, None])

    def check() -> None:
        if next(checks, "stop") == "stop":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        collector(stream, alive={"job:0:0"}).pull(0, 1, check)


def test_a_batch_that_failed_for_good_ends_the_wait_with_its_reason(stream: ExperienceStream) -> None:
    stream.push(batch(shard=0))
    for mendable, error in ((False, RolloutFailed), (True, ServicesFailed)):
        stream.record_failure("job:0:1", Failure("policy answered 422: the prompt is too long", mendable=mendable))
        with pytest.raises(error, match="job:0:1 failed: policy answered 422: the prompt is too long"):
            collector(stream).pull(0, 2, lambda: None)


def test_a_new_attempt_asks_again_for_what_failed_and_the_same_attempt_does_not(stream: ExperienceStream) -> None:
    failure = Failure("reward answered 503", mendable=True)
    stream.record_failure("job:0:0", failure)
    sent: list[RolloutTask] = []
    learner = collector(stream, sent)
    learner.enqueue([task(0, 0)])
    assert [each.batch_id for each in sent] == ["job:0:0"]
    assert stream.failures(["job:0:0"]) == {}
    stream.record_failure("job:0:0", failure)
    learner.enqueue([task(0, 0)])
    assert len(sent) == 1
    with pytest.raises(ServicesFailed):
        learner.pull(0, 1, lambda: None)


def test_a_batch_that_is_there_has_not_failed(stream: ExperienceStream) -> None:
    stream.push(batch())
    stream.record_failure("job:0:0", Failure("a second worker was late", mendable=True))
    assert stream.failures(["job:0:0"]) == {}


def test_a_discarded_batch_is_made_again_and_the_others_stay(stream: ExperienceStream, redis_client: Redis) -> None:
    for shard in (0, 1):
        stream.push(batch(shard=shard, reward=1.0))
    first = collector(stream)
    batches = first.pull(0, 2, lambda: None)
    first.discard(batches[1:])
    assert stream.seen(["job:0:0", "job:0:1"]) == {"job:0:0"}
    assert redis_client.xlen("experience:job") == 1
    sent: list[RolloutTask] = []
    second = collector(stream, sent)
    second.enqueue([task(0, 0), task(0, 1)])
    assert [each.batch_id for each in sent] == ["job:0:1"]
    stream.push(batch(shard=1, reward=2.0))
    again = second.pull(0, 2, lambda: None)
    assert [each.rewards.tolist() for each in again] == [[1.0], [2.0]]
    second.acknowledge(again)
    assert redis_client.xpending("experience:job", "learner")["pending"] == 0


def test_only_what_is_neither_there_nor_on_its_way_is_asked_for(stream: ExperienceStream) -> None:
    stream.push(batch(shard=0))
    sent: list[RolloutTask] = []
    collector(stream, sent, alive={"job:0:1"}).enqueue([task(0, shard) for shard in range(3)])
    assert [each.batch_id for each in sent] == ["job:0:2"]


def test_a_lost_task_is_sent_again_and_a_live_one_is_not(stream: ExperienceStream) -> None:
    alive = {"job:0:0", "job:0:1"}
    sent: list[RolloutTask] = []
    learner = collector(stream, sent, alive)
    learner.enqueue([task(0, 0), task(0, 1)])
    waits = 0

    def check() -> None:
        # Both are being made at first; then the worker of the second dies, and its task is sent again.
        nonlocal waits
        waits += 1
        if waits == 5:
            alive.discard("job:0:1")
        if sent:
            stream.push(batch(shard=0))
            stream.push(batch(shard=1))

    learner.pull(0, 2, check)
    assert {each.batch_id for each in sent} == {"job:0:1"}


def test_a_batch_that_was_acknowledged_before_is_not_waited_for(stream: ExperienceStream) -> None:
    stream.push(batch())
    first = collector(stream)
    first.acknowledge(first.pull(0, 1, lambda: None))
    second = collector(stream)
    second.enqueue([task(0, 0)])
    with pytest.raises(RolloutFailed, match="checkpoint that contains it is missing"):
        second.pull(0, 1, lambda: None)


def test_a_batch_that_nobody_asked_for_is_not_waited_for(stream: ExperienceStream) -> None:
    with pytest.raises(RolloutFailed, match="never asked for"):
        collector(stream).pull(0, 1, lambda: None)


def test_the_experience_of_an_ended_job_expires(stream: ExperienceStream, jobs: JobStore, redis_client: Redis) -> None:
    stream.push(batch())
    stream.record_failure("job:0:1", Failure("reason", mendable=True))
    assert redis_client.ttl("experience:job") == -1
    jobs.finish("job", JobState.SUCCEEDED, None, None)
    for key in ("experience:job", "experience:job:seen", "experience:job:failed"):
        assert 0 < redis_client.ttl(key) <= 100
