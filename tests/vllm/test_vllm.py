"""The backend `vllm` in front of vLLM itself, on a CPU with the real SmolLM2. Run by `make test-vllm` alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from rlhf.artifacts.store import ArtifactStore
from rlhf.lm.loading import LanguageModel, load_language_model
from services.policy.app import create_app
from services.policy.settings import PolicySettings
from tests.contract.policy.test_native import refused
from tests.unit.policy.publishing import write_adapter
from tests.vllm.server import start_vllm
from tests.waiting import wait_ready

pytestmark = [pytest.mark.vllm, pytest.mark.smollm2, pytest.mark.timeout(1200)]  # the server may take 900 s to start
QUESTIONS = ["What is the capital of France?", "Name two fruits and say what colour each of them has."]


@pytest.fixture(scope="module")
def model(smollm2: Path) -> LanguageModel:
    return load_language_model(str(smollm2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def remote(smollm2: Path, store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Our service before vLLM. Its folder of the model has no weights."""
    words = tmp_path_factory.mktemp("words") / smollm2.name
    shutil.copytree(smollm2, words, ignore=shutil.ignore_patterns("*.safetensors"))
    options = ["--max-model-len", "512", "--max-num-seqs", "16", "--logprobs-mode", "processed_logprobs"]
    # Not compiled, which takes longer than these tests.
    options += ["--enforce-eager", "--enable-lora", "--max-lora-rank", "16", "--max-loras", "2", "--max-cpu-loras", "2"]
    with start_vllm(smollm2, options) as server:
        settings = {"backend": "vllm", "backend_url": server.url, "backend_max_adapters": 2, "store": store.root}
        with TestClient(create_app(PolicySettings(model=str(words), **settings))) as client:
            wait_ready(client)
            yield client


def native(client: TestClient, adapter: str | None = None, questions: list[str] = QUESTIONS, **sampling) -> list[dict]:
    returns = {"token_ids": True, "logprobs": True, "prompt_token_ids": True, "top_logprobs": 3}
    body = {"prompts": questions, "adapter": adapter, "sampling": {"max_new_tokens": 24, "seed": 5, **sampling}}
    answer = client.post("/generate", json=body | {"return": returns})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def scores(model: LanguageModel, result: dict) -> torch.Tensor:
    """[response, V] logits of the plain model at each of the response's tokens."""
    prompt, response = result["prompt_token_ids"], result["token_ids"]
    with torch.inference_mode():
        logits = model.model(torch.tensor([prompt + response])).logits[0].float()
    return logits[len(prompt) - 1 : -1]


def taken(logits: torch.Tensor, result: dict) -> list[float]:
    return logits.log_softmax(-1).gather(1, torch.tensor(result["token_ids"])[:, None])[:, 0].tolist()


def test_greedy_answers_are_the_models_likeliest_tokens(model: LanguageModel, remote: TestClient) -> None:
    for result in native(remote, temperature=0):
        logits = scores(model, result)
        assert logits.argmax(-1).tolist() == result["token_ids"]
        assert result["behavior_logprobs"] == result["model_logprobs"] == pytest.approx(taken(logits, result), abs=1e-3)
        best = [[token["id"] for token in top] for top in result["top_logprobs"]]
        assert best == logits.topk(3).indices.tolist()


def test_log_probabilities_are_of_the_distribution_sampled_from(model: LanguageModel, remote: TestClient) -> None:
    for result in native(remote, temperature=0.8, top_p=0.9, repetition_penalty=1.2, n=2):
        logits, sequence = scores(model, result), result["prompt_token_ids"] + result["token_ids"]
        expected = []
        for i, row in enumerate(logits):
            seen = torch.tensor([sequence[: len(result["prompt_token_ids"]) + i]])
            for step in (RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(0.8), TopPLogitsWarper(0.9)):
                row = step(seen, row.reshape(1, -1))
            expected.append(row.log_softmax(-1)[0, result["token_ids"][i]].item())
        assert result["behavior_logprobs"] == pytest.approx(expected, abs=2e-3)
        assert result["model_logprobs"] is None


def test_seeds_give_the_same_again_and_samples_differ(remote: TestClient) -> None:
    once, again = (native(remote, temperature=1.0, n=2) for _ in range(2))
    assert [result["token_ids"] for result in once] == [result["token_ids"] for result in again]
    assert once[0]["token_ids"] != once[1]["token_ids"]


def test_responses_end_as_ours_do(remote: TestClient) -> None:
    whole = native(remote, temperature=0, max_new_tokens=60)[0]
    assert whole["finish_reason"] == "eos_token"
    assert whole["token_ids"][-1] == 2  # <|im_end|>
    stopped = native(remote, temperature=0, max_new_tokens=60, stop=[" of"])[0]
    assert stopped["finish_reason"] == "stop_sequence"
    assert stopped["text"] == whole["text"][: whole["text"].index(" of")]
    assert stopped["token_ids"] == whole["token_ids"][: len(stopped["token_ids"])]


def test_prompts_have_their_log_probabilities(model: LanguageModel, remote: TestClient) -> None:
    parameters = {"details": True, "decoder_input_details": True, "max_new_tokens": 2}
    answer = remote.post("/generate", json={"inputs": "The capital of France is", "parameters": parameters}).json()
    prefill = answer["details"]["prefill"]
    ids = [token["id"] for token in prefill]
    expected = taken(scores(model, {"prompt_token_ids": ids[:1], "token_ids": ids[1:]}), {"token_ids": ids[1:]})
    assert [token["logprob"] for token in prefill[1:]] == pytest.approx(expected, abs=1e-3)


def test_openais_dialect_and_limits_in_the_servers_words(remote: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 24, "temperature": 0, "stream": True}
    assert remote.post("/v1/chat/completions", json=body).text.endswith("data: [DONE]\n\n")
    assert remote.get("/info").json()["max_total_tokens"] == 512
    words = refused(remote, 422, "validation", json={"prompts": ["hi"], "sampling": {"typical_p": 0.9}})
    assert "typical_p=0.9 cannot be done by the backend vllm" in words


def rename(folder: Path) -> None:
    """As an adapter trained on a wrapped model has it: the names end alike, and are no module's."""
    path = folder / "adapter_model.safetensors"
    renamed = {name.replace("model.layers", "model.wrapped.layers"): t for name, t in load_file(path).items()}
    save_file(renamed, path)


def test_adapters_come_and_go_and_change_what_is_said(
    remote: TestClient, store: ArtifactStore, smollm2: Path, model: LanguageModel
) -> None:
    settings = {"r": 8, "lora_alpha": 16.0, "size": 0.02}
    refs = [
        store.publish("adapters", "job", v, lambda folder, v=v: write_adapter(smollm2, folder, seed=v, **settings))
        for v in (1, 2, 3)
    ]
    plain = native(remote, temperature=0)[0]["behavior_logprobs"]
    told = [native(remote, ref, temperature=0)[0]["behavior_logprobs"] for ref in refs]
    assert remote.get("/adapters").json()["adapters"] == refs[1:]
    assert len({tuple(logprobs) for logprobs in (plain, *told)}) == 4
    assert native(remote, refs[0], temperature=0)[0]["behavior_logprobs"] == pytest.approx(told[0], abs=1e-3)


def test_an_adapter_of_other_modules_is_refused(remote: TestClient, store: ArtifactStore, smollm2: Path) -> None:
    def write(folder: Path) -> None:
        write_adapter(smollm2, folder, size=0.02)
        rename(folder)

    ref = store.publish("adapters", "mismatched", 1, write)
    words = refused(remote, 409, "conflict", json={"prompts": ["hi"], "adapter": ref})
    assert "exactly as without it" in words
