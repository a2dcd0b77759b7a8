"""TGI's body on `/generate`: TGI's answer, its rules, and a refusal by name for what is not offered."""

import json
import math

import pytest
from fastapi.testclient import TestClient

from rlhf.contracts.tgi import TgiResponse
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
    assert "".join(token.text for token in details.tokens if not token.special) == answer.generated_text


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


def test_prefill_tells_the_prompts_tokens(client: TestClient) -> None:
    details = ask(client, "hello", decoder_input_details=True).details
    assert "".join(token.text for token in details.prefill) == "hello"
    assert details.prefill[0].logprob is None
    assert all(token.logprob < 0 for token in details.prefill[1:])


def test_top_tokens_are_the_likeliest_at_each_step(client: TestClient) -> None:
    details = ask(client, details=True, top_n_tokens=4).details
    for token, top in zip(details.tokens, details.top_tokens, strict=True):
        assert len(top) == 4
        assert (top[0].id, top[0].logprob) == (token.id, pytest.approx(token.logprob))


def test_the_best_of_several_has_the_highest_mean_log_probability(client: TestClient) -> None:
    answer = ask(client, best_of=4, do_sample=True, seed=2, details=True)
    others = answer.details.best_of_sequences
    means = [
        sum(token.logprob for token in sequence.tokens) / len(sequence.tokens) for sequence in (answer.details, *others)
    ]
    assert len(means) == 4
    assert means == sorted(means, reverse=True)
    assert len({answer.generated_text, *(other.generated_text for other in others)}) > 1


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
        ({"typical_p": 5e-324}, "parameters.typical_p"),  # 0 in float32
        ({"top_k": 2**63}, "parameters.top_k"),  # no int64
        ({"stop": ["a", "b", "c", "d", "e"]}, "parameters.stop"),
        ({"best_of": 2}, "parameters.best_of=2 needs sampling"),
        ({"best_of": 17, "do_sample": True}, "parameters.best_of"),
        ({"top_n_tokens": 21}, "parameters.top_n_tokens"),
        ({"watermark": True}, "parameters.watermark=True is not offered"),
        ({"grammar": {}}, "parameters.grammar={} is not offered"),
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
    assert "send it to /generate_stream" in refused(client, 422, "validation", json={"inputs": "hi", "stream": True})
    assert "model: unknown field" in refused(client, 422, "validation", json={"inputs": "hi", "model": "m"})
    assert "inputs" in refused(client, 422, "validation", json={"inputs": ["hi"]})
    body = {"inputs": "hi", "parameters": {"adapter_id": "nobody@1"}}
    assert "nobody@1 does not exist" in refused(client, 404, "not_found", json=body)


def test_tokenize_says_where_tokens_stand(client: TestClient) -> None:
    tokens = client.post("/tokenize", json={"inputs": "hi!"}).json()
    assert [(token["text"], token["start"], token["stop"]) for token in tokens] == [
        ("h", 0, 1),
        ("i", 1, 2),
        ("!", 2, 3),
    ]


def test_chat_tokenize_shows_the_template(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    answer = client.post("/chat_tokenize", json=body).json()
    # The tests' template, and one token for each of its characters but the three special ones.
    assert answer["templated_text"] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert "".join(token["text"] for token in answer["tokenize_response"]) == answer["templated_text"]
    assert len(answer["tokenize_response"]) == len("user\nhi\nassistant\n") + 3


def events(client: TestClient, path: str, body: dict) -> list[dict]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data:")) for line in answer.text.split("\n\n") if line]


@pytest.mark.parametrize("path", ["/generate_stream", "/"])
def test_a_stream_has_one_event_a_token_and_the_text_in_the_last(client: TestClient, path: str) -> None:
    parameters = {"max_new_tokens": 12, "do_sample": True, "seed": 4, "details": True, "top_n_tokens": 2}
    whole = ask(client, **parameters)
    told = events(client, path, {"inputs": "hi", "parameters": parameters, "stream": True})
    assert [event["index"] for event in told] == list(range(1, len(whole.details.tokens) + 1))
    assert [event["token"] for event in told] == [token.model_dump() for token in whole.details.tokens]
    assert [event["generated_text"] for event in told[:-1]] == [None] * (len(told) - 1)
    assert told[-1]["generated_text"] == whole.generated_text
    assert told[-1]["details"] == {
        "finish_reason": whole.details.finish_reason,
        "generated_tokens": len(told),
        "seed": 4,
        "input_length": 2,
    }
    assert "".join(e["token"]["text"] for e in told if not e["token"]["special"]) == whole.generated_text
    assert all(len(event["top_tokens"]) == 2 for event in told)
    for event in told:
        assert set(event) == {"index", "token", "top_tokens", "generated_text", "details"}
        for token in (event["token"], *event["top_tokens"]):
            assert set(token) == {"id", "text", "logprob", "special"}


def test_what_a_stream_cannot_have_is_named(client: TestClient) -> None:
    for parameters, words in (
        ({"best_of": 2, "do_sample": True}, "best_of=2 cannot be streamed"),
        ({"decoder_input_details": True}, "decoder_input_details cannot be streamed"),
    ):
        body = {"inputs": "hi", "parameters": parameters}
        assert words in refused(client, 422, "validation", path="/generate_stream", json=body)


def test_an_error_before_the_first_token_is_a_plain_answer(client: TestClient) -> None:
    body = {"inputs": "hi", "parameters": {"adapter_id": "nobody@1"}}
    assert "nobody@1 does not exist" in refused(client, 404, "not_found", path="/generate_stream", json=body)
