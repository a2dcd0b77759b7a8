"""The reward service over HTTP, in process, with a tiny backbone and ensembles that were never trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore

SAMPLE = {"prompt": "Why is the sky blue?", "response": "Air scatters blue light."}


def score(client: TestClient, *samples: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/reward", json={"samples": list(samples), "model": "rm-a@1", **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refuse(client: TestClient, status: int, kind: str, **body: Any) -> str:
    answer = client.post("/reward", json={"samples": [SAMPLE], "model": "rm-a@1", **body})
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.json()["error"]


def test_members_mean_and_population_deviation(client: TestClient) -> None:
    (result,) = score(client, SAMPLE)["results"]
    members = result["members"]
    assert len(members) == 3
    mean = sum(members) / 3
    assert result["score"] == pytest.approx(mean)
    assert result["uncertainty"] == pytest.approx((sum((m - mean) ** 2 for m in members) / 3) ** 0.5)
    assert result["reward"] == pytest.approx(mean)


def test_aggregation_is_the_requests(client: TestClient) -> None:
    how = {"method": "lcb", "lambda": 2.0}
    (result,) = score(client, SAMPLE, aggregation=how)["results"]
    assert result["reward"] == pytest.approx(result["score"] - 2.0 * result["uncertainty"])
    (result,) = score(client, SAMPLE, model="rm-a@2")["results"]
    assert result["uncertainty"] == 0.0


def test_results_are_in_the_order_of_the_samples_and_independent_of_neighbours(client: TestClient) -> None:
    samples = [{**SAMPLE, "response": text} for text in ("One.", "Two words here, and more of them.", "3")]
    together = [result["score"] for result in score(client, *samples)["results"]]
    alone = [score(client, sample)["results"][0]["score"] for sample in samples]
    # Float noise of other paddings only.
    assert together == pytest.approx(alone, abs=1e-4)
    backwards = [result["score"] for result in score(client, *reversed(samples))["results"]]
    assert backwards == pytest.approx(together[::-1], abs=1e-4)


def test_a_conversation_and_a_text_prompt_of_one_user_turn_are_the_same(client: TestClient) -> None:
    turn = {**SAMPLE, "prompt": [{"role": "user", "content": SAMPLE["prompt"]}]}
    first, second = score(client, SAMPLE, turn)["results"]
    assert first["members"] == pytest.approx(second["members"], abs=1e-5)


def test_a_sample_that_cannot_be_scored_has_an_error_in_its_place(client: TestClient) -> None:
    results = score(client, SAMPLE, {**SAMPLE, "response": ""}, {**SAMPLE, "response": "x" * 500}, SAMPLE)["results"]
    assert "empty" in results[1]["error"]
    assert "500 tokens" in results[2]["error"]
    assert {results[1]["error_type"], results[2]["error_type"]} == {"scoring"}
    assert results[0]["score"] == pytest.approx(results[3]["score"], abs=1e-5)  # float noise of other paddings


def test_a_prompt_that_the_chat_template_refuses_fails_alone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = client.app.state.runtime.worker().base.tokenizer
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}hello"
    monkeypatch.setattr(tokenizer, "chat_template", refusing)
    system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    scored, failed = score(client, SAMPLE, {**SAMPLE, "prompt": system})["results"]
    assert "score" in scored
    assert failed["error_type"] == "validation"
    assert "no system role" in failed["error"]


def test_a_long_prompt_is_cut_and_says_so(client: TestClient) -> None:
    (result,) = score(client, {**SAMPLE, "prompt": "y" * 1000})["results"]
    assert result["truncated"] is True
    assert score(client, SAMPLE)["results"][0]["truncated"] is False


def test_odd_texts_are_scored(client: TestClient) -> None:
    texts = ["\x00", "🙂🙂", "\u202egnorw", " "]
    results = score(client, *({**SAMPLE, "response": text} for text in texts))["results"]
    assert all("score" in result for result in results)


def test_no_samples_no_results(client: TestClient) -> None:
    assert score(client)["results"] == []


def test_refusals_say_what_and_how_to_mend_it(client: TestClient) -> None:
    assert "rm-a@2" in refuse(client, 404, "not_found", model="rm-a@9")
    assert "nothing is named rm-z" in refuse(client, 404, "not_found", model="rm-z@1")
    assert "model" in refuse(client, 422, "validation", model="../../etc@1")
    assert "names no reward model" in refuse(client, 422, "validation", model=None)
    assert "ensemble.safetensors" in refuse(client, 409, "conflict", model="rm-torn@1")
    assert "evil.pkl" in refuse(client, 409, "conflict", model="rm-pickled@1")
    assert "lamda: unknown field" in refuse(client, 422, "validation", aggregation={"method": "lcb", "lamda": 1})
    assert "9 samples exceed the 8" in refuse(client, 413, "too_large", samples=[SAMPLE] * 9)
    # Whatever was refused, the sound model goes on serving.
    assert score(client, SAMPLE)["results"][0]["members"]


def test_a_key_is_needed(client: TestClient) -> None:
    for headers, seen in (({"Authorization": ""}, "no key"), ({"Authorization": "Bearer wrong"}, "a wrong key")):
        answer = client.post("/reward", json={"samples": []}, headers=headers)
        assert (answer.status_code, answer.json()["error_type"]) == (401, "unauthorized")
        assert seen in answer.json()["error"]


def test_a_bundle_of_another_backbone_is_refused(client: TestClient, folder: Path) -> None:
    store, source = folder / "store/reward_models", folder / "store/reward_models/rm-a/1"
    other = folder / "copied"
    shutil.copytree(source, other)
    config = json.loads((other / "config.json").read_text())
    config["probe"] = [value + 5.0 for value in config["probe"]]
    (other / "config.json").write_text(json.dumps(config))
    (other / "manifest.json").unlink()
    ArtifactStore(folder / "store").publish(
        "reward_models", "rm-other", 1, lambda target: shutil.copytree(other, target, dirs_exist_ok=True) and None
    )
    assert (store / "rm-other/1").is_dir()
    assert "backbone" in refuse(client, 409, "conflict", model="rm-other@1")


def test_health_models_and_metrics_are_told(client: TestClient) -> None:
    score(client, SAMPLE)
    assert client.get("/health", headers={"Authorization": ""}).json() == {"status": "ok"}
    assert "rm-a@1" in client.get("/models").json()["loaded"]
    assert 'rlhf_reward_samples_total{outcome="scored"}' in client.get("/metrics").text
