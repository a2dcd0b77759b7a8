"""`POST /jobs?dry_run=true`: an estimate in place of a job, and nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis

from rlhf.artifacts.store import ArtifactStore
from rlhf.cli_estimate import describe_estimate
from rlhf.contracts.estimate import Estimate
from services.trainer.api.app import create_app
from services.trainer.api.served_model import Model, Unknown, find_model
from services.trainer.jobs.series import SeriesWriter
from services.trainer.settings import ApiSettings
from tests.contract.trainer.test_jobs_api import PAIRS, PPO, error_of
from tests.unit.trainer.estimate.published import SMOLLM2_135M


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model as far as the API needs it."""
    folder = tmp_path / "models" / "smol"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMOLLM2_135M))
    return folder


@pytest.fixture
def settings(redis_url: str, store: ArtifactStore, model: Path) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, store=store.root, reconcile_s=60, model=str(model), max_body_bytes=2**20)


def estimate(client: TestClient, body: dict[str, Any], **headers: str) -> Estimate:
    response = client.post("/jobs?dry_run=true", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return Estimate.model_validate(response.json())


def test_a_dry_run_leaves_nothing_behind(client: TestClient, store: ArtifactStore, redis_client: Redis) -> None:
    files = sorted(store.root.rglob("*"))
    told = estimate(client, PPO, **{"Idempotency-Key": "k"})
    assert told.kind == "ppo"
    assert sorted(store.root.rglob("*")) == files
    assert not redis_client.keys("job*") + redis_client.keys("idempotency*") + redis_client.keys("learner*")
    assert client.post("/jobs", json={**PPO, "steps": 4}, headers={"Idempotency-Key": "k"}).status_code == 202


def test_a_ppo_job_is_counted_by_its_config(client: TestClient) -> None:
    rollout = {"prompts_per_step": 8, "samples_per_prompt": 2, "max_new_tokens": 100}
    told = estimate(client, {**PPO, "prompts": ["x" * 32], "rollout": rollout})
    assert told.model is not None
    assert (told.model.name, told.model.parameters, told.model.dtype) == ("smol", 134_515_008, "float32")
    assert told.learner is not None
    assert told.learner.parts["base_weights"] == 4 * 134_515_008
    assert told.learner.peak_bytes == sum(told.learner.parts.values())
    # Keys and values of 3 heads of 64 in 30 layers, 4 bytes each, for 16,384 tokens.
    assert told.policy is not None
    assert told.policy.parts["key_value_cache"] == 16_384 * 2 * 30 * 3 * 64 * 4
    # 32 characters are 8 tokens, and the template's 32; 3 steps.
    work = told.work
    assert (work.samples_per_step, work.prompt_tokens_per_step, work.response_tokens_per_step) == (16, 320, 1600)
    assert (work.samples, work.tokens) == (48, 3 * 1920)
    assert told.time.hours is None
    assert "none of the newest 20 ppo jobs" in told.time.basis


def test_a_job_that_trains_weights_is_counted_by_them(client: TestClient) -> None:
    told = estimate(client, {**PPO, "full": {"top_layers": 4}})
    # A layer: queries and output 576 × 576, keys and values 576 × 192, three of 576 × 1536, two norms; a final norm.
    trained = 4 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576) + 576
    assert told.learner is not None
    assert told.learner.parts["trained_weights"] == 4 * trained
    # With the value head's 577.
    assert told.learner.parts["adamw_moments"] == 8 * (trained + 577)
    assert told.policy is not None
    assert told.policy.parts["merged_weights"] == 2 * 4 * trained
    # 14.2 million parameters: 54.0 MiB, and of two versions 108.0.
    table = [" ".join(line.split()) for line in describe_estimate(told).splitlines()]
    assert {"54 MiB trained weights", "108 MiB merged weights"} <= set(table)


def test_half_precision_halves_the_base_weights(settings: ApiSettings) -> None:
    with TestClient(create_app(settings.model_copy(update={"dtype": "bfloat16"}))) as client:
        told = estimate(client, PPO)
    assert told.learner is not None
    assert told.learner.parts["base_weights"] == 2 * 134_515_008


def test_a_reward_model_job_is_counted_too(client: TestClient) -> None:
    told = estimate(client, {"kind": "reward_model", "pairs": PAIRS, "epochs": 2, "members": 3, "member_layers": 0})
    assert told.learner is not None
    # Heads alone: 3 × (2 × 576 weights and a bias), float32.
    assert told.learner.parts["members"] == 3 * 1153 * 4
    assert (told.work.steps, told.work.samples_per_step, told.policy) == (2, 2, None)
    # Two prompts of 1 + 32 tokens, four responses of 1 token and EOS.
    assert told.work.tokens == 2 * 33 + 4 * 2


def test_without_the_models_folder_what_needs_no_model_is_told_and_why_not_more(settings: ApiSettings) -> None:
    with TestClient(create_app(settings.model_copy(update={"model": "/nowhere/else"}))) as client:
        told, reading = estimate(client, PPO), estimate(client, {"kind": "reward_model", "pairs": PAIRS})
    for each in (told, reading):
        assert (each.model, each.learner, each.policy, each.flops, each.time.hours) == (None,) * 5
        assert each.model_unknown is not None
        assert "/nowhere/else" in each.model_unknown
    assert told.work.samples_per_step == 64
    assert told.work.redis_bytes > 0


def test_all_that_a_submission_refuses_is_refused_at_once(client: TestClient, redis_client: Redis) -> None:
    response = client.post("/jobs?dry_run=true", json={**PPO, "steps": 0, "learning_rate": 1})
    assert response.status_code == 422
    assert "steps" in error_of(response)
    assert "learning_rate: unknown field" in error_of(response)
    ensemble = {"kind": "ensemble", "model": "rm@8"}
    body = {**PPO, "reward_model": "rm@7", "objectives": [ensemble], "lora": {"top_layers": 31}}
    for path in ("/jobs?dry_run=true", "/jobs"):
        response = client.post(path, json=body)
        assert response.status_code == 422
        for part in ("rm@7", "objectives.0.model 'rm@8'", "lora.top_layers=31 exceeds the 30 layers of smol"):
            assert part in error_of(response)
    body = {**PPO, "full": {"top_layers": 31}}
    assert "full.top_layers=31 exceeds the 30 layers" in error_of(client.post("/jobs", json=body))
    body = {"kind": "reward_model", "pairs": PAIRS, "trunk_layers": 40}
    assert "trunk_layers=40 exceeds" in error_of(client.post("/jobs", json=body))
    assert redis_client.keys("job*") == []


def test_hours_follow_the_pace_of_an_earlier_job_on_the_same_model(client: TestClient, store: ArtifactStore) -> None:
    def earlier(model: str, seconds: float, config: str = "adapter_config.json", **trained: object) -> str:
        job = client.post("/jobs", json={**PPO, **trained}).json()["id"]
        series = SeriesWriter(store.job_folder(job))
        # 64 samples of 64 tokens: as many as a step's config allows.
        for step in (1, 2):
            row = {"step": step, "rollout_s": seconds, "learn_s": 2 * seconds, "tokens": 4096.0, "samples": 64.0}
            series.write(row)
        text = json.dumps({"base_model_name_or_path": model})
        store.publish("adapters", job, 2, lambda folder: (folder / config).write_text(text) and None)
        return job

    known = earlier("smol", 60.0)
    earlier("another", 1.0)
    told = estimate(client, {**PPO, "steps": 20})
    # 60 s of waiting and 120 s of learning a step.
    assert told.time.seconds_per_step == pytest.approx(180)
    assert told.time.hours == pytest.approx(20 * 180 / 3600)
    assert told.time.basis.startswith(f"{known} on this model")
    # Half the prompts: half of both.
    half = estimate(client, {**PPO, "rollout": {"prompts_per_step": 8}}).time.seconds_per_step
    assert half == pytest.approx(90, rel=0.01)
    # A newer job that trained weights: its versions say the model in another file.
    newer = earlier("smol", 30.0, "replaced.json", full={})
    told = estimate(client, {**PPO, "full": {}})
    assert told.time.basis.startswith(f"{newer} on this model")
    assert told.time.seconds_per_step == pytest.approx(90)


def test_hours_of_a_reward_model_follow_an_earlier_one(client: TestClient, store: ArtifactStore) -> None:
    body = {"kind": "reward_model", "pairs": PAIRS, "epochs": 4}
    job = client.post("/jobs", json=body).json()["id"]
    told = {"durations": {"read_s": 30.0, "train_s": 60.0}, "epochs": 4, "shape": {"backbone": "smol"}}
    (store.job_folder(job) / "metrics.json").write_text(json.dumps(told))
    time = estimate(client, body).time
    assert (time.hours, time.seconds_per_step) == (pytest.approx(90 / 3600), pytest.approx(90 / 4))


def test_a_model_of_the_hub_is_found_where_its_download_lies(
    settings: ApiSettings, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--owner--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    model.rename(repository / "snapshots" / "abc")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = find_model(settings.model_copy(update={"model": "owner/small"}))
    assert isinstance(found, Model)
    assert (found.name, found.shape.layers) == ("owner/small", 30)
    unknown = find_model(settings.model_copy(update={"model": "owner/other"}))
    assert isinstance(unknown, Unknown)
    assert "models--owner--other" in unknown.why
