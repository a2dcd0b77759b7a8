"""kill -9 of the real learner worker amid a reward-model job, again and again: the same bundle, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.folders import sha256
from rlhf.artifacts.store import ArtifactStore
from services.trainer.jobs.series import read_series
from tests.integration.trainer.conftest import Worker, wait_for
from tests.tiny_models import save_tiny_llama

KILLS = 5
PAIRS, HELDOUT_EVERY, EPOCHS, BATCH = 480, 4, 5, 4


def job_body() -> dict[str, object]:
    """A rule to learn, over enough batches that a worker can be killed amid each."""
    rng = random.Random(5)
    words = ["rain", "snow", "sun", "wind", "fog", "hail", "dew"]
    pairs = []
    for number in range(PAIRS):
        first, second = (" ".join(rng.choices(words, k=rng.randint(2, 4))) for _ in range(2))
        split = "heldout" if number % HELDOUT_EVERY == 0 else None
        pairs.append({"prompt": f"Say {number}.", "chosen": first + ".", "rejected": second, "split": split})
    return {
        "kind": "reward_model",
        "pairs": pairs,
        "members": 3,
        "trunk_layers": 2,
        "member_layers": 1,
        "lora_r": 2,
        "learning_rate": 0.01,
        "epochs": EPOCHS,
        "patience": EPOCHS,
        "batch_size": BATCH,
        "max_length": 128,
        "seed": 3,
    }


@pytest.fixture
def start_learner(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    """Starts `python -m services.trainer.worker learner` on a tiny Llama; kills what is left at the end."""
    settings = environment | {
        "RLHF_MODEL": str(save_tiny_llama(tmp_path / "tiny")),
        "RLHF_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    started: list[Worker] = []

    def start() -> Worker:
        worker = Worker(["services.trainer.worker", "learner"], settings, tmp_path / f"learner-{len(started)}.log")
        started.append(worker)
        return worker.ready()

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


def bundle_sums(store: ArtifactStore, job: str) -> dict[str, str]:
    """Of all that a reward server reads; the model card and metrics.json have the job's name and its times."""
    folder = store.resolve("reward_models", f"{job}@1")
    return {name: sha256(folder / name) for name in ("ensemble.safetensors", "config.json")}


def test_killed_five_times_it_publishes_the_same_bundle(
    start_learner: Callable[[], Worker], api: TestClient, store: ArtifactStore, until: Callable[..., dict]
) -> None:
    def submit() -> str:
        answer = api.post("/jobs", json=job_body())
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def step(job: str) -> int:
        return api.get(f"/jobs/{job}").json()["step"]

    undisturbed = submit()
    worker = start_learner()
    assert until(undisturbed, "succeeded", "failed", seconds=120)["state"] == "succeeded"
    total = api.get(f"/jobs/{undisturbed}").json()["total_steps"]

    # Somewhere in each fifth of the first four fifths: later, the job could end before the kill arrives. The first of
    # these is amid the reading of the pairs (14 steps of 400), the others are amid the first four epochs (77 each).
    share, draw = total * 4 // 5 // KILLS, random.Random(2)
    moments = [share * part + draw.randint(1, share) for part in range(KILLS)]
    killed = submit()
    for moment in moments:
        wait_for(lambda at=moment: step(killed) >= at, 120)
        assert api.get(f"/jobs/{killed}").json()["state"] == "running", "killed too late to be in its way"
        worker.kill()
        worker = start_learner()
    status = until(killed, "succeeded", "failed", seconds=120)
    assert (status["state"], status["attempts"]) == ("succeeded", KILLS + 1), status
    # By the third kill there is a checkpoint to go on from.
    assert [event["name"] for event in api.get(f"/jobs/{killed}/events").json()].count("resumed") >= 3
    assert bundle_sums(store, killed) == bundle_sums(store, undisturbed)
    # Whatever was done twice is told once.
    rows = [read_series(store.job_folder(job)) for job in (killed, undisturbed)]
    assert [[row["step"] for row in each] for each in rows] == [list(range(1, total + 1))] * 2
    losses = [[row.get("loss") for row in each if "accuracy_ensemble" not in row] for each in rows]
    assert losses[0] == losses[1]
