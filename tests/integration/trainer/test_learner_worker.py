"""Jobs on a real learner worker: they run, fail, are cancelled, and survive what happens to their worker."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from redis import Redis

from rlhf.artifacts.store import ArtifactStore
from services.trainer.jobs.celery_app import create_celery, send_learn
from services.trainer.jobs.series import read_series
from services.trainer.settings import ApiSettings
from tests.integration.trainer.conftest import Worker, wait_for

Start = Callable[..., Worker]
Submit = Callable[..., str]
Until = Callable[..., dict]
ORDER = {"low": -10, "normal": 0, "normal, later": 0, "high": 1, "high, later": 1, "urgent": 10}


def names(api: TestClient, job: str) -> list[str]:
    return [event["name"] for event in api.get(f"/jobs/{job}/events").json()]


def step(api: TestClient, job: str) -> int:
    return api.get(f"/jobs/{job}").json()["step"]


def test_a_job_runs_to_its_end(start: Start, api: TestClient, submit: Submit, until: Until) -> None:
    worker = start("learner").ready()
    job = submit("count", steps=3)
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["step"], status["progress"], status["attempts"]) == ("succeeded", 3, 1.0, 1)
    assert status["started_at"] <= status["finished_at"]
    assert status["last_metrics"] == {"step_squared": 9.0}
    rows = api.get(f"/jobs/{job}/metrics").json()["rows"]
    assert [(row["step"], row["step_squared"], row["odd"]) for row in rows] == [
        (1, 1, None),
        (2, 4, None),
        (3, 9, None),
    ]
    assert names(api, job) == ["queued", "running", *["progress"] * 3, "accepted", "succeeded"]
    stream = api.get(f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}).text
    assert re.findall("event: (.*)", stream) == ["state", "state", *["progress"] * 3, "log", "state"]
    assert worker.stop() == 0


def test_a_failing_job_says_why_and_the_worker_goes_on(
    start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    worker = start("learner").ready()
    job = submit("fail")
    status = until(job, "failed", "succeeded")
    assert (status["state"], status["reason"]) == ("failed", "ValueError: broken on purpose")
    assert names(api, job) == ["queued", "running", "about_to_fail", "failed"]
    assert 'raise ValueError(\\"broken on purpose\\")' in worker.log.read_text(), "the traceback is in the log"
    assert until(submit("count", steps=1), "succeeded", "failed")["state"] == "succeeded"


def test_a_job_pauses_while_the_stores_copy_cannot_be_written_and_goes_on(
    start: Start, api: TestClient, submit: Submit, until: Until, tmp_path: Path
) -> None:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    start("learner", RLHF_STORE_REMOTE=f"file://{bucket}").ready()
    (bucket / "adapters").write_text("no folder")
    job = submit("train", steps=2)
    reason = until(job, "paused", "failed", "succeeded")["reason"]
    assert reason.startswith(f"file://{bucket} cannot be reached for adapters/{job}/1 (")
    assert reason.endswith("then resume the job: nothing is lost, and what failed is asked for again")
    (bucket / "adapters").unlink()
    api.post(f"/jobs/{job}/resume")
    assert until(job, "succeeded", "failed")["attempts"] == 2
    there = {str(path.relative_to(bucket / "adapters" / job)) for path in (bucket / "adapters" / job).rglob("*.json")}
    versions = {f"{version}/{name}" for version in (1, 2) for name in ("a.json", "manifest.json")}
    assert there == versions | {"decisions/2.json"}, "the versions, and that the last is accepted"


def test_a_running_job_is_cancelled(start: Start, api: TestClient, submit: Submit, until: Until) -> None:
    start("learner").ready()
    job = submit("count", steps=10_000)
    until(job, "running")
    assert api.post(f"/jobs/{job}/cancel").status_code == 202
    status = until(job, "cancelled")
    assert status["reason"] == "cancelled by request"
    assert status["step"] < 10_000
    assert until(submit("count", steps=1), "succeeded")["attempts"] == 1


def test_a_running_job_is_paused_and_goes_on_where_it_was(
    start: Start, api: TestClient, submit: Submit, until: Until, store: ArtifactStore
) -> None:
    start("learner").ready()
    job = submit("count", steps=40)
    wait_for(lambda: step(api, job) >= 3)
    assert api.post(f"/jobs/{job}/pause").status_code == 202
    paused = until(job, "paused")
    assert paused["reason"] == "paused by request"
    assert 3 <= paused["step"] < 40
    assert until(submit("count", steps=1), "succeeded")["attempts"] == 1, "its learner is free for others"
    assert api.post(f"/jobs/{job}/resume").status_code == 202
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["attempts"], status["reason"]) == ("succeeded", 2, None)
    assert [row["step"] for row in read_series(store.job_folder(job))] == list(range(1, 41))
    states = [name for name in names(api, job) if name != "progress"]
    assert states == ["queued", "running", "pause_requested", "paused", "queued", "running", "accepted", "succeeded"]


def test_a_killed_learner_costs_a_lease_and_nothing_else(
    start: Start, api: TestClient, submit: Submit, until: Until, store: ArtifactStore
) -> None:
    first = start("learner").ready()
    job = submit("count", steps=40)
    wait_for(lambda: step(api, job) >= 3)
    first.kill()
    start("learner").ready()
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["attempts"]) == ("succeeded", 2)
    rows = read_series(store.job_folder(job))
    assert [row["step"] for row in rows] == list(range(1, 41)), "no step is missing and none is doubled"
    states = [name for name in names(api, job) if name != "progress"]
    assert states == ["queued", "running", "queued", "running", "accepted", "succeeded"]


def test_a_stopped_learner_hands_its_job_to_the_next(
    start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    first = start("learner").ready()
    job = submit("count", steps=40)
    wait_for(lambda: step(api, job) >= 3)
    assert first.stop() == 0
    status = api.get(f"/jobs/{job}").json()
    assert (status["state"], status["attempts"]) == ("queued", 1)
    assert "checkpoint" in api.get(f"/jobs/{job}/events").json()[-1]["message"]
    start("learner").ready()
    status = until(job, "succeeded", "failed")
    assert (status["state"], status["attempts"]) == ("succeeded", 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_learner_in_the_middle_of_a_step_leaves_in_time(
    start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis, number: int
) -> None:
    worker = start("learner").ready()
    job = submit("hang")
    wait_for(lambda: "hanging" in names(api, job))
    assert worker.stop(number) == 0
    assert api.get(f"/jobs/{job}").json()["state"] == "queued"
    assert redis_client.exists(f"lease:{job}") == 0
    start("learner").ready()
    wait_for(lambda: names(api, job).count("hanging") == 2)
    assert api.get(f"/jobs/{job}").json()["attempts"] == 2


def test_an_idle_learner_stops(start: Start) -> None:
    assert start("learner").ready().stop() == 0


def test_a_job_that_kills_its_learner_fails_in_the_end(
    start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    # max_crashes=2: the third death in a row is one too many.
    job = submit("die")
    for _ in range(3):
        start("learner").process.wait(60)
    status = until(job, "failed")
    assert status["attempts"] == 3
    assert "died 3 times" in status["reason"]


def test_doubled_messages_run_a_job_once(
    start: Start, api: TestClient, submit: Submit, until: Until, settings: ApiSettings
) -> None:
    job = submit("count", steps=20)
    app = create_celery(settings)
    for _ in range(2):
        send_learn(app, job)
    workers = [start("learner").ready(), start("learner").ready()]
    assert until(job, "succeeded")["attempts"] == 1
    last = submit("count", steps=1)
    assert until(last, "succeeded")["attempts"] == 1
    logs = "".join(worker.log.read_text() for worker in workers)
    wait_for(lambda: "nothing to do" in "".join(worker.log.read_text() for worker in workers))
    assert logs.count('"message": "job begins"') == 2
    app.close()


def test_a_free_learner_takes_the_highest_priority_then_the_oldest(
    start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    ids = {name: submit("count", steps=1, priority=priority) for name, priority in ORDER.items()}
    assert {name: api.get(f"/jobs/{job}").json()["priority"] for name, job in ids.items()} == ORDER
    # The messages come in the order of submission; which job is taken is not theirs to say.
    start("learner").ready()
    ended = {name: until(job, "succeeded")["started_at"] for name, job in ids.items()}
    assert sorted(ids, key=ended.__getitem__) == ["urgent", "high", "high, later", "normal", "normal, later", "low"]
    assert {until(job, "succeeded")["attempts"] for job in ids.values()} == {1}


def test_a_running_job_is_not_stopped_for_another_and_a_resumed_one_keeps_its_priority(
    start: Start, api: TestClient, submit: Submit, until: Until
) -> None:
    start("learner").ready()
    running = submit("count", steps=40)
    until(running, "running")
    normal, high = submit("count", steps=1), submit("count", steps=1, priority=1)
    api.post(f"/jobs/{high}/pause")
    api.post(f"/jobs/{high}/resume")
    done = [until(job, "succeeded") for job in (running, high, normal)]
    assert [status["attempts"] for status in done] == [1, 1, 1]
    assert done[0]["finished_at"] <= done[1]["started_at"] <= done[1]["finished_at"] <= done[2]["started_at"]


def test_a_learner_that_loses_its_lease_stops_and_writes_nothing(
    start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis
) -> None:
    worker = start("learner").ready()
    job = submit("count", steps=10_000)
    wait_for(lambda: step(api, job) >= 2)
    redis_client.set(f"lease:{job}", "someone else", px=60_000)
    wait_for(lambda: "job abandoned" in worker.log.read_text())
    assert redis_client.get(f"lease:{job}") == b"someone else"
    assert api.get(f"/jobs/{job}").json()["state"] == "running"


def test_a_lost_message_is_sent_again(
    start: Start, api: TestClient, submit: Submit, until: Until, redis_client: Redis
) -> None:
    job = submit("count", steps=1)
    redis_client.delete("learner")
    start("learner").ready()
    assert until(job, "succeeded")["attempts"] == 1


def test_the_worker_log_is_json_without_warnings_and_metrics_are_served(
    start: Start, submit: Submit, until: Until, redis_url: str
) -> None:
    import httpx

    worker = start("learner", RLHF_METRICS_PORT="0").ready()
    until(submit("count", steps=1), "succeeded")
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    port = next(line["port"] for line in lines if line["message"] == "metrics")
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'rlhf_task_seconds_count{outcome="succeeded",task="trainer.learn"} 1.0' in metrics
    assert worker.stop() == 0
    lines = worker.log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("{")] == []
    assert [line for line in map(json.loads, lines) if line["level"] not in ("info", "debug")] == []
    assert redis_url.split("@")[0].rsplit(":", 1)[1] not in worker.log.read_text(), "no password"
