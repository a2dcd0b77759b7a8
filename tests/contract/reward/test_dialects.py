"""The bodies that other trainers' clients send, and that they get the reward of the native route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rlhf.contracts.errors import ErrorBody
from services.reward.app import create_app
from services.reward.settings import RewardSettings
from tests.waiting import wait_ready

PROMPT = "Why is the sky blue?"
RESPONSES = ["Air scatters blue light.", "No idea."]
RENDERED = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
CHATS = [f"{RENDERED}{response}<|im_end|>\n" for response in RESPONSES]
USER = {"role": "user", "content": PROMPT}
LOGS = {"uncertainty", "prompt_truncated"}


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Iterator[TestClient]:
    """A server with a default model and no key: OpenRLHF and verl send neither."""
    settings = RewardSettings(model=str(folder / "tiny"), store=folder / "store", threads=1, reward_model="rm-a@1")
    with TestClient(create_app(settings)) as client:
        wait_ready(client)
        yield client


@pytest.fixture(scope="module")
def native(trainer: TestClient) -> list[dict[str, Any]]:
    body = {"samples": [{"prompt": PROMPT, "response": response} for response in RESPONSES]}
    results = trainer.post("/reward", json=body).json()["results"]
    assert results[0]["reward"] != pytest.approx(results[1]["reward"], abs=1e-3)
    return results


@pytest.fixture(scope="module")
def rewards(native: list[dict[str, Any]]) -> Any:
    """Equal but for the float noise of other paddings."""
    return pytest.approx([result["reward"] for result in native], abs=1e-5)


def ask(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refuse(client: TestClient, path: str, status: int, body: dict[str, Any]) -> str:
    # By json.dumps, which spells half a surrogate pair where the client would refuse it.
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    return ErrorBody.model_validate(answer.json()).error


def test_openrlhf(trainer: TestClient, native: list[dict[str, Any]], rewards: Any) -> None:
    """`SingleTurnAgentExecutor._fetch_rewards_via_http` of OpenRLHF, openrlhf/utils/agent.py at 3c3be62.

    A query is decoded with its special tokens, so a finished response has its EOS; labels may be null.
    """
    queries = [f"{RENDERED}{response}<|im_end|>" for response in RESPONSES]
    answer = ask(trainer, "/get_reward", {"query": queries, "prompts": [RENDERED] * 2, "labels": [None, "blue"]})
    assert answer["rewards"] == answer["scores"] == rewards
    # The learner concatenates each log over the answers: one number a query.
    assert set(answer["extra_logs"]) == LOGS
    assert answer["extra_logs"]["uncertainty"] == pytest.approx([result["uncertainty"] for result in native], abs=1e-5)
    assert answer["extra_logs"]["prompt_truncated"] == [0.0, 0.0]
    # Without --apply_chat_template the prompt is the data set's text, and the query continues it.
    plain = {"query": [PROMPT + response for response in RESPONSES], "prompts": [PROMPT] * 2, "labels": [None] * 2}
    assert ask(trainer, "/get_reward", plain)["rewards"] == rewards
    # With more reward URLs than queries, some get none.
    nothing = ask(trainer, "/get_reward", {"query": [], "prompts": [], "labels": []})
    assert nothing == {"rewards": [], "scores": [], "extra_logs": {name: [] for name in LOGS}}


def test_verl(trainer: TestClient, rewards: Any) -> None:
    """`RewardLoopWorker` of verl, verl/experimental/reward_loop/reward_loop.py at 19c3bef.

    It cuts the BOS token off, which is <|im_start|> here, and reads `data[-1].probs[-1]`.
    """
    chats = [chat.removeprefix("<|im_start|>") for chat in CHATS]
    bodies = [{"model": "Skywork/Skywork-Reward-V2", "input": chat, "use_activation": False} for chat in chats]
    assert [ask(trainer, "/classify", body)["data"][-1]["probs"][-1] for body in bodies] == rewards


def test_vllm_texts(trainer: TestClient, rewards: Any) -> None:
    """Answers as in vllm/entrypoints/pooling: classify, pooling and scoring/protocol.py."""
    texts = {"model": "any", "input": CHATS, "truncate_prompt_tokens": -1}
    answer = ask(trainer, "/classify", texts)
    assert [entry.pop("probs")[0] for entry in answer["data"]] == rewards
    assert answer["data"] == [{"index": index, "label": "LABEL_0", "num_classes": 1} for index in (0, 1)]
    assert answer["id"].startswith("classify-")
    assert (answer["object"], answer["model"]) == ("list", "rm-a@1")
    # Bytes and special tokens of the two chats; an EOS closes each in place of its `<|im_end|>\n`.
    read = sum(len(RENDERED) - len("<|im_start|>" * 2 + "<|im_end|>") + 3 + len(text) + 1 for text in RESPONSES)
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read}

    pooled = ask(trainer, "/pooling", texts)["data"]
    assert [entry["data"][0] for entry in pooled] == rewards
    assert {(entry["object"], len(entry["data"])) for entry in pooled} == {("pooling", 1)}
    for path, key in (("/classify", "probs"), ("/pooling", "data")):
        chats = [{"messages": [USER, {"role": "assistant", "content": text, "name": "x"}]} for text in RESPONSES]
        assert [ask(trainer, path, chat)["data"][0][key][0] for chat in chats] == rewards


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("prompt", [PROMPT, RENDERED], ids=["plain", "rendered"])
def test_vllm_pairs(trainer: TestClient, rewards: Any, path: str, prompt: str) -> None:
    for names in (("text_1", "text_2"), ("queries", "documents")):
        for prompts in (prompt, [prompt], [prompt, prompt]):
            answer = ask(trainer, path, dict(zip(names, (prompts, RESPONSES), strict=True)))
            assert [entry["score"] for entry in answer["data"]] == rewards
    assert answer["data"][1] == {"index": 1, "object": "score", "score": answer["data"][1]["score"]}


def test_rerank_is_vllms_by_documents_and_teis_by_texts(trainer: TestClient, native: list[dict[str, Any]]) -> None:
    values = [result["reward"] for result in native]
    best = values.index(max(values))
    for path in ("/rerank", "/v1/rerank"):
        answer = ask(trainer, path, {"model": "any", "query": PROMPT, "documents": RESPONSES})
        assert [result["index"] for result in answer["results"]] == [best, 1 - best]
        assert answer["results"][0] == {
            "index": best,
            "document": {"text": RESPONSES[best], "multi_modal": None},
            "relevance_score": pytest.approx(values[best], abs=1e-5),
        }
        assert set(answer) == {"id", "model", "usage", "results"}
        top = ask(trainer, path, {"query": PROMPT, "documents": RESPONSES, "top_n": 1})["results"]
        assert [result["index"] for result in top] == [best]
    # The body of TEI's quick tour (docs/source/en/quick_tour.md).
    ranks = ask(trainer, "/rerank", {"query": PROMPT, "texts": RESPONSES, "raw_scores": False})
    assert ranks == [{"index": i, "score": pytest.approx(values[i], abs=1e-5)} for i in (best, 1 - best)]
    named = ask(trainer, "/rerank", {"query": PROMPT, "texts": RESPONSES, "return_text": True})
    assert [rank["text"] for rank in named] == [RESPONSES[best], RESPONSES[1 - best]]


def test_tei_predict(trainer: TestClient, rewards: Any) -> None:
    """Shapes of `PredictInput` and `PredictResponse`, router/src/http/types.rs of TEI at 0d124dc."""
    pairs = [[PROMPT, response] for response in RESPONSES]
    for batch in (pairs, [[RENDERED, RESPONSES[0]], [CHATS[1]]]):
        answer = ask(trainer, "/predict", {"inputs": batch, "raw_scores": True, "truncate": True})
        assert [entry[0]["score"] for entry in answer] == rewards
        assert {(len(entry), entry[0]["label"]) for entry in answer} == {(1, "LABEL_0")}
    for one in (CHATS, [[chat] for chat in CHATS], pairs):
        single = [ask(trainer, "/predict", {"inputs": each}) for each in one]
        assert [entry[0]["score"] for entry in single] == rewards


def test_the_model_is_the_named_one_or_the_default(trainer: TestClient, client: TestClient) -> None:
    pair = {"text_1": PROMPT, "text_2": RESPONSES}
    assert ask(trainer, "/score", {**pair, "model": "rm-a@2"})["model"] == "rm-a@2"
    assert "nothing is named rm-z" in refuse(trainer, "/score", 404, {**pair, "model": "rm-z@1"})
    # This server has no default.
    assert ask(client, "/score", {**pair, "model": "rm-a@2"})["model"] == "rm-a@2"
    assert "RLHF_REWARD_MODEL" in refuse(client, "/score", 422, {**pair, "model": "gpt"})


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/get_reward", {"query": CHATS}, "prompts is missing"),
        ("/get_reward", {"query": CHATS, "prompts": [RENDERED]}, "2 queries have 1 prompts"),
        ("/get_reward", {"query": ["Hi there", "Ho"], "prompts": ["Hi", "Hop"]}, "query.1 does not begin with"),
        ("/classify", {"input": [CHATS[0], "No chat."]}, "input.1 is 'No chat.'"),
        ("/classify", {"input": [1, 2]}, "valid string (got 1)"),
        ("/classify", {"model": "rm-a@1"}, "neither `input` nor `messages`"),
        ("/pooling", {"messages": [USER]}, "end with the assistant's message"),
        ("/pooling", {"input": CHATS, "encoding_format": "base64"}, "base64"),
        ("/score", {"text_1": [PROMPT] * 3, "text_2": RESPONSES}, "text_1 has 3 texts and text_2 2"),
        ("/predict", {"inputs": ["a", "b", "c"]}, "at most 2"),
        ("/predict", {"inputs": [[PROMPT, "x"], ["No chat."]]}, "inputs.1 is 'No chat.'"),
        ("/rerank", {"query": PROMPT}, "`documents` (vLLM) or `texts` (TEI)"),
        ("/score", {"text_1": PROMPT, "text_2": ["x"] * 4097}, "at most 4096"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_cure(
    trainer: TestClient, path: str, body: dict[str, Any], said: str
) -> None:
    assert said in refuse(trainer, path, 422, body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward", {"query": [RENDERED + "x", RENDERED + "<|im_end|>"], "prompts": [RENDERED] * 2}),
        ("/classify", {"input": [CHATS[0], RENDERED]}),
        ("/pooling", {"input": [CHATS[0], RENDERED + "\ud800"]}),
        ("/score", {"text_1": PROMPT, "text_2": ["x", "y" * 200]}),
        ("/predict", {"inputs": [[PROMPT, "x"], [PROMPT, ""]]}),
        ("/rerank", {"query": PROMPT, "documents": ["x", ""]}),
        ("/rerank", {"query": PROMPT, "texts": ["x", ""]}),
    ],
)
def test_one_sample_without_a_score_is_no_answer_at_all(trainer: TestClient, path: str, body: dict[str, Any]) -> None:
    assert "sample 1 has no score" in refuse(trainer, path, 424, body)


def test_overload_is_a_503_since_these_clients_retry_no_4xx(
    trainer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.app.state.runtime.worker(), "_max_queue", 0)  # type: ignore[attr-defined]
    for path, body in (("/classify", {"input": CHATS}), ("/get_reward", {"query": ["Hi"], "prompts": ["H"]})):
        answer = trainer.post(path, json=body)
        assert (answer.status_code, answer.json()["error_type"]) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    native = trainer.post("/reward", json={"samples": [{"prompt": "H", "response": "i"}]})
    assert (native.status_code, native.json()["error_type"]) == (429, "overloaded")


def test_the_schema_tells_of_every_route_and_its_errors(trainer: TestClient) -> None:
    paths = trainer.get("/openapi.json").json()["paths"]
    for path in ("/get_reward", "/classify", "/pooling", "/score", "/v1/score", "/predict", "/rerank", "/v1/rerank"):
        assert {"200", "422", "424", "503"} <= set(paths[path]["post"]["responses"])
        assert "429" not in paths[path]["post"]["responses"]
