"""Rollouts on a real worker process against a stand-in for policy and reward; batches arrive exactly once."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from celery import Celery
from fastapi.testclient import TestClient
from redis import Redis

from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.reward import Aggregation
from rlhf.contracts.rollout import RolloutTask
from services.trainer.experience.stream import ExperienceStream, Failure
from services.trainer.jobs.celery_app import create_celery, send_rollouts, waiting
from services.trainer.jobs.store import JobStore
from services.trainer.settings import ApiSettings
from tests.integration.trainer.conftest import Worker, wait_for

Start = Callable[..., Worker]
Submit = Callable[..., str]
Until = Callable[..., dict]


class Services(ThreadingHTTPServer):
    """Policy and reward in one: two samples a prompt, `prompt/0` and `prompt/1`; rewards 0.0 and 1.0."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.generated: list[str] = []
        self.keys: set[str | None] = set()
        self.open = threading.Event()
        self.open.set()
        self.refusals: list[tuple[int, str]] = []
        self.unscored: set[str] = set()

    def generate(self, body: dict) -> dict:
        (prompt,) = body["prompts"]
        self.generated.append(prompt)
        self.open.wait(60)
        results = [
            {
                "prompt_index": 0,
                "sample_index": i,
                "text": f"{prompt}/{i}",
                "finish_reason": "eos_token",
                "generated_tokens": 2,
                "token_ids": [5, 6],
                "behavior_logprobs": [-1.0, -2.0],
                "prompt_token_ids": [1, 2, 3],
                "seed": i,
            }
            for i in range(2)
        ]
        timings = {"queue_s": 0.0, "inference_s": 0.0}
        return {"model": "m", "adapter": None, "policy_version": 0, "results": results, "timings": timings}

    def score(self, body: dict) -> dict:
        results = []
        for sample in body["samples"]:
            reward = float(sample["response"][-1])
            score = {"reward": reward, "score": reward, "uncertainty": 0.0, "members": [reward], "truncated": False}
            score["objectives"] = {"preference": reward}
            failure = {"error": "too long", "error_type": "scoring"}
            results.append(failure if sample["response"] in self.unscored else score)
        return {"model": "rm@1", "results": results, "timings": {"queue_s": 0.0, "inference_s": 0.0}}


class Handler(BaseHTTPRequestHandler):
    server: Services

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers["authorization"])
        if self.server.refusals:
            status, kind = self.server.refusals.pop(0)
            self.answer(status, {"error": f"refused with {status}", "error_type": kind})
        else:
            self.answer(200, self.server.generate(body) if self.path == "/generate" else self.server.score(body))

    def answer(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:
            return  # the worker that asked was killed

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def services(environment: dict[str, str]) -> Iterator[Services]:
    server = Services()
    environment |= {"RLHF_POLICY_URL": server.url, "RLHF_REWARD_URL": server.url, "RLHF_API_KEY": "sesame"}
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.open.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def app(settings: ApiSettings) -> Iterator[Celery]:
    app = create_celery(settings)
    yield app
    app.close()


@pytest.fixture
def job(redis_client: Redis, settings: ApiSettings) -> str:
    """A live job without a learner: the test is its learner."""
    return JobStore(redis_client, settings).create("job", "ppo", 3)


@pytest.fixture
def stream(redis_client: Redis, job: str) -> ExperienceStream:
    return ExperienceStream(redis_client, job)


def send(app: Celery, shard: int = 0, **changes: object) -> RolloutTask:
    task = RolloutTask(
        job="job",
        step=0,
        shard=shard,
        policy_version=0,
        adapter=None,
        prompts=[f"p{shard}"],
        sampling=SamplingParams(n=2, seed=shard),
        reward_model="rm@1",
        aggregation=Aggregation(),
    ).model_copy(update=changes)
    send_rollouts(app, {task.batch_id: task.model_dump(mode="json")})
    return task


def pulled(api: TestClient, job: str) -> list[dict]:
    return [event for event in api.get(f"/jobs/{job}/events").json() if event["name"] == "pulled"]


def test_a_job_gets_its_batches(
    services: Services, start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis
) -> None:
    services.unscored = {"prompt-1-0/1"}
    worker, _ = start("rollouts").ready(), start("learner").ready()
    job = submit("pull", steps=2, rollout={"shards": 2, "prompts_per_step": 2})
    assert until(job, "succeeded", "failed")["state"] == "succeeded"
    first, second = pulled(api, job)
    assert first["message"] == "prompt-0-0/0 prompt-0-0/1 prompt-0-1/0 prompt-0-1/1"
    assert second["message"] == "prompt-1-0/0 prompt-1-1/0 prompt-1-1/1"
    assert second["data"]["failures"] == ["prompt 0 sample 1: not scored: too long"]
    assert services.keys == {"Bearer sesame"}
    assert redis_client.xlen(f"experience:{job}") == 0
    assert 0 < redis_client.ttl(f"experience:{job}:seen") <= 3600
    assert worker.stop() == 0


def test_a_killed_rollout_worker_delays_its_batch_and_doubles_nothing(
    services: Services, start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis
) -> None:
    services.open.clear()
    doomed, _ = start("rollouts").ready(), start("learner").ready()
    job = submit("pull", steps=1)
    wait_for(lambda: services.generated == ["prompt-0-0"])
    doomed.kill()
    services.open.set()
    assert redis_client.exists(f"experience:{job}:seen") == 0
    start("rollouts").ready()
    assert until(job, "succeeded", "failed")["state"] == "succeeded"
    assert [event["message"] for event in pulled(api, job)] == ["prompt-0-0/0 prompt-0-0/1"]
    assert services.generated == ["prompt-0-0"] * 2
    assert redis_client.smembers(f"experience:{job}:seen") == {f"{job}:0:0".encode()}


def test_a_stopped_rollout_worker_hands_its_task_back(
    services: Services, start: Start, app: Celery, stream: ExperienceStream, redis_client: Redis
) -> None:
    services.open.clear()
    first = start("rollouts").ready()
    send(app)
    wait_for(lambda: services.generated == ["p0"])
    assert first.stop() == 0
    assert waiting(redis_client, "rollouts") == {"job:0:0"}
    assert redis_client.exists("lease:job:0:0") == 0
    services.open.set()
    start("rollouts").ready()
    wait_for(lambda: stream.seen(["job:0:0"]) != set())


def test_a_rollout_worker_that_can_finish_in_time_does(
    services: Services, start: Start, app: Celery, stream: ExperienceStream, redis_client: Redis
) -> None:
    services.open.clear()
    worker = start("rollouts", RLHF_STOP_GRACE_S="20").ready()
    send(app)
    wait_for(lambda: services.generated == ["p0"])
    worker.process.terminate()
    services.open.set()
    assert worker.process.wait(30) == 0
    assert stream.seen(["job:0:0"]) == {"job:0:0"}
    assert redis_client.llen("rollouts") == 0
    assert redis_client.hlen("unacked") == 0


def test_a_learner_killed_while_it_waits_goes_on_waiting(
    services: Services, start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    services.open.clear()
    start("rollouts").ready()
    doomed = start("learner").ready()
    job = submit("pull", steps=2)
    wait_for(lambda: services.generated == ["prompt-0-0"])
    doomed.kill()
    services.open.set()
    start("learner").ready()
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["attempts"]) == ("succeeded", 2)
    assert [event["message"] for event in pulled(api, job)] == [
        "prompt-0-0/0 prompt-0-0/1",
        "prompt-1-0/0 prompt-1-0/1",
    ]
    assert services.generated == ["prompt-0-0", "prompt-1-0"]


def test_repeated_messages_make_one_batch(
    services: Services, start: Start, app: Celery, stream: ExperienceStream, redis_client: Redis
) -> None:
    for shard in (0, 0, 0, 1):
        send(app, shard)
    start("rollouts").ready()
    start("rollouts").ready()
    wait_for(lambda: stream.seen(["job:0:0", "job:0:1"]) == {"job:0:0", "job:0:1"})
    wait_for(lambda: redis_client.llen("rollouts") + redis_client.hlen("unacked") == 0)
    assert redis_client.xlen("experience:job") == 2
    assert sorted(services.generated) == ["p0", "p1"]


@pytest.mark.parametrize(("status", "kind"), [(503, "unavailable"), (429, "overloaded"), (500, "internal")])
def test_an_outage_is_waited_out(
    services: Services, start: Start, api: TestClient, app: Celery, stream: ExperienceStream, status: int, kind: str
) -> None:
    services.refusals = [(status, kind)] * 12
    start("rollouts", RLHF_ROLLOUT_MAX_RETRIES="100", RLHF_ROLLOUT_BACKOFF_MAX_S="0.2").ready()
    send(app)
    wait_for(lambda: stream.seen(["job:0:0"]) != set())
    assert services.refusals == []
    assert stream.failures(["job:0:0"]) == {}
    told = [event["message"] for event in api.get("/jobs/job/events").json() if event["level"] == "warning"]
    assert re.fullmatch(rf"rollout job:0:0 is tried again in \d+ s: refused with {status}", told[0])


def test_an_outage_without_end_fails_the_rollout(
    services: Services, start: Start, app: Celery, stream: ExperienceStream
) -> None:
    services.refusals = [(503, "unavailable")] * 1000
    start("rollouts", RLHF_ROLLOUT_MAX_RETRIES="1").ready()
    send(app)
    wait_for(lambda: stream.failures(["job:0:0"]) != {})
    assert stream.failures(["job:0:0"])["job:0:0"] == Failure("refused with 503 (after 2 tries)", mendable=True)


def test_a_refused_request_fails_the_job_with_the_reason(
    services: Services, start: Start, submit: Submit, until: Until
) -> None:
    services.refusals = [(422, "validation")]
    start("rollouts").ready()
    start("learner").ready()
    job = submit("pull", steps=1)
    status = until(job, "failed", "succeeded")
    assert status["reason"] == f"rollout {job}:0:0 failed: refused with 422"
    assert services.generated == []


@pytest.mark.parametrize(("status", "kind"), [(503, "unavailable"), (401, "unauthorized")])
def test_a_job_pauses_for_services_that_stay_ill_and_goes_on_when_they_are_mended(
    services: Services, start: Start, api: TestClient, submit: Submit, until: Until, status: int, kind: str
) -> None:
    start("rollouts", RLHF_ROLLOUT_MAX_RETRIES="1").ready()
    start("learner").ready()
    services.refusals = [(status, kind)] * 1000
    job = submit("pull", steps=2)
    paused = until(job, "paused", "failed", "succeeded")
    assert paused["state"] == "paused"
    assert f"rollout {job}:0:0 failed: refused with {status}" in paused["reason"]
    assert "resume the job" in paused["reason"]
    event = api.get(f"/jobs/{job}/events").json()[-1]
    assert (event["kind"], event["level"], event["name"]) == ("state", "warning", "paused")
    services.refusals = []
    assert api.post(f"/jobs/{job}/resume").json()["state"] == "queued"
    status_then = until(job, "succeeded", "failed")
    assert (status_then["state"], status_then["attempts"], status_then["reason"]) == ("succeeded", 2, None)
    assert [event["message"] for event in pulled(api, job)] == [
        "prompt-0-0/0 prompt-0-0/1",
        "prompt-1-0/0 prompt-1-0/1",
    ]


def test_a_job_pauses_for_samples_that_nobody_could_score_and_has_them_scored_later(
    services: Services, start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis
) -> None:
    start("rollouts").ready()
    start("learner").ready()
    services.unscored = {"prompt-1-1/0", "prompt-1-1/1"}
    job = submit("pull", steps=2, rollout={"shards": 2, "prompts_per_step": 2})
    assert until(job, "paused", "failed", "succeeded")["state"] == "paused"
    services.unscored = set()
    api.post(f"/jobs/{job}/resume")
    assert until(job, "succeeded", "failed")["state"] == "succeeded"
    assert [event["message"] for event in pulled(api, job)] == [
        "prompt-0-0/0 prompt-0-0/1 prompt-0-1/0 prompt-0-1/1",
        "prompt-1-0/0 prompt-1-0/1 prompt-1-1/0 prompt-1-1/1",
    ]
    # Only the shard without scores was made twice.
    assert sorted(services.generated) == ["prompt-0-0", "prompt-0-1", "prompt-1-0", "prompt-1-1", "prompt-1-1"]
    assert redis_client.xlen(f"experience:{job}") == 0


def test_a_hard_limit_ends_a_try(services: Services, start: Start, app: Celery, stream: ExperienceStream) -> None:
    services.open.clear()
    start("rollouts", RLHF_ROLLOUT_TIME_LIMIT_S="0.5", RLHF_ROLLOUT_MAX_RETRIES="1").ready()
    send(app)
    wait_for(lambda: stream.failures(["job:0:0"]) != {})
    assert "not done after 0.5 s" in stream.failures(["job:0:0"])["job:0:0"].reason
    assert services.generated == ["p0", "p0"]


def test_rollouts_of_an_ended_job_are_dropped(
    services: Services, start: Start, app: Celery, redis_client: Redis
) -> None:
    send(app, job="gone")
    start("rollouts").ready()
    wait_for(lambda: redis_client.llen("rollouts") + redis_client.hlen("unacked") == 0)
    assert services.generated == []
    assert redis_client.keys("experience:*") == []


def test_a_message_of_another_version_fails_its_batch(
    services: Services, start: Start, app: Celery, stream: ExperienceStream
) -> None:
    send_rollouts(app, {"job:0:0": {"job": "job", "step": 0, "shard": 0, "new_field": 1}})
    start("rollouts").ready()
    wait_for(lambda: stream.failures(["job:0:0"]) != {})
    assert "new_field" in stream.failures(["job:0:0"])["job:0:0"].reason


def test_the_log_is_json_without_warnings(
    services: Services, start: Start, app: Celery, stream: ExperienceStream
) -> None:
    worker = start("rollouts").ready()
    send(app, prompts=["a private prompt"])
    wait_for(lambda: stream.seen(["job:0:0"]) != set())
    assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] not in ("info", "debug")] == []
    assert "sesame" not in worker.log.read_text()
    assert "private" not in worker.log.read_text()
