"""TGI's body on `/generate`: TGI's answer, its rules, and a refusal by name for what is not offered."""

import math

import pytest
from fastapi.testclient import TestClient

from rlhf.contracts.policy import TgiResponse
from tests.contract.policy.test_native import refused


def ask(client: TestClient, inputs: str = "hi", **parameters) -> TgiResponse:
    answer = client.post("/generate", json={"inputs": inputs, "parameters": {"max_new_tokens": 8, **parameters}})
    assert answer.status_code == 200, answer.text
    return TgiResponse.model_validate_json(answer.content)


def test_details_have_tokens_with_log_probabilities(client: TestClient) -> None:
    answer = ask(client, details=True, do_sample=True, seed=3)
    details = answer.details
    assert details.generated_tokens == len(details.tokens) <= 8
    assert details.seed == 3
    assert details.prefill == []
    assert all(token.logprob < 0 and math.isfinite(token.logprob) for token in details.tokens)
    assert "".join(token.text for token in details.tokens if not token.special).startswith(answer.generated_text[:1])


def test_without_details_there_are_none(client: TestClient) -> None:
    assert ask(client).details is None


def test_greedy_unless_sampling_is_asked_for(client: TestClient) -> None:
    assert ask(client, max_new_tokens=20) == ask(client, max_new_tokens=20)
    assert ask(client, details=True).details.seed is None
    for warper in ({"temperature": 0.9}, {"top_k": 5}, {"top_p": 0.9}, {"typical_p": 0.9}, {"do_sample": True}):
        assert ask(client, details=True, seed=4, **warper).details.seed == 4
    assert ask(client, details=True, temperature=1.0).details.seed is None


def test_a_frequency_penalty_changes_a_response_that_repeats_itself(client: TestClient) -> None:
    plain = ask(client, "aaaa", max_new_tokens=40, details=True).details.tokens
    varied = ask(client, "aaaa", max_new_tokens=40, details=True, frequency_penalty=2).details.tokens
    assert len({token.id for token in varied}) > len({token.id for token in plain})


def test_no_parameters_mean_sampling_of_a_hundred_tokens(client: TestClient) -> None:
    answer = client.post("/generate", json={"inputs": "hi"})
    assert int(answer.headers["x-generated-tokens"]) <= 100
    assert answer.headers["x-prompt-tokens"] == "2"  # two bytes, no chat template
    assert float(answer.headers["x-compute-time"]) > 0


def test_full_text_begins_with_the_inputs(client: TestClient) -> None:
    plain = ask(client).generated_text
    assert ask(client, return_full_text=True).generated_text == "hi" + plain


def test_truncate_keeps_the_last_tokens(client: TestClient) -> None:
    assert ask(client, "abcdefhi", truncate=2).generated_text == ask(client, "hi").generated_text
    for wrong in (0, 512):
        body = {"inputs": "hi", "parameters": {"truncate": wrong}}
        assert f"truncate={wrong} is outside 1 to 511" in refused(client, 422, "validation", json=body)


def test_best_of_one_is_what_there_is_anyway(client: TestClient) -> None:
    assert ask(client, best_of=1).generated_text == ask(client).generated_text


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"temperature": 0}, "parameters.temperature"),
        ({"temperature": -1}, "parameters.temperature"),
        ({"repetition_penalty": 0}, "parameters.repetition_penalty"),
        ({"repetition_penalty": 11}, "repetition_penalty"),
        ({"frequency_penalty": 2.5}, "parameters.frequency_penalty"),
        ({"top_k": 0}, "parameters.top_k"),
        ({"top_p": 0}, "parameters.top_p"),
        ({"top_p": 1}, "parameters.top_p"),
        ({"typical_p": 1}, "parameters.typical_p"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "parameters.stop"),
        ({"best_of": 2}, "parameters.best_of=2 is not offered"),
        ({"top_n_tokens": 3}, "parameters.top_n_tokens=3 is not offered"),
        ({"watermark": True}, "parameters.watermark=True is not offered"),
        ({"grammar": {}}, "parameters.grammar={} is not offered"),
        ({"decoder_input_details": True}, "parameters.decoder_input_details=True is not offered"),
        ({"max_new_tokens": 0}, "parameters.max_new_tokens"),
        ({"max_new_tokens": 600}, "max_new_tokens=600 exceeds the 512 tokens"),
        ({"presence_penalty": 1}, "parameters.presence_penalty: unknown field"),
        ({"adapter_id": "../x@1"}, "parameters.adapter_id"),
    ],
)
def test_parameters_that_are_refused_are_named(client: TestClient, parameters: dict, words: str) -> None:
    assert words in refused(client, 422, "validation", json={"inputs": "hi", "parameters": parameters})


def test_bodies_that_are_refused(client: TestClient) -> None:
    assert "inputs is empty" in refused(client, 422, "validation", json={"inputs": ""})
    assert "stream=true" in refused(client, 422, "validation", json={"inputs": "hi", "stream": True})
    assert "model: unknown field" in refused(client, 422, "validation", json={"inputs": "hi", "model": "m"})
    assert "inputs" in refused(client, 422, "validation", json={"inputs": ["hi"]})
    body = {"inputs": "hi", "parameters": {"adapter_id": "nobody@1"}}
    assert "nobody@1 does not exist" in refused(client, 404, "not_found", json=body)
