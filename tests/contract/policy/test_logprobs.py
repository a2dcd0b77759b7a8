"""`POST /logprobs` against what the engine said while sampling, and what it refuses."""

import pytest
from fastapi.testclient import TestClient

PROMPT = "Say something."


def test_given_tokens_are_as_likely_as_when_they_were_sampled(client: TestClient) -> None:
    asked = {"prompts": [PROMPT], "sampling": {"max_new_tokens": 12, "n": 3, "seed": 5, "temperature": 1.0}}
    returns = {"return": {"token_ids": True, "logprobs": True}}
    sampled = client.post("/generate", json=asked | returns).json()["results"]
    samples = [{"prompt": PROMPT, "response": each["token_ids"]} for each in sampled]
    answer = client.post("/logprobs", json={"samples": samples})
    assert answer.status_code == 200, answer.text
    for given, told in zip(sampled, answer.json()["results"], strict=True):
        assert told["token_ids"] == given["token_ids"]
        assert told["logprobs"] == pytest.approx(given["model_logprobs"], abs=1e-4)


def test_text_and_its_tokens_are_the_same_response(client: TestClient) -> None:
    # The tests' tokenizer has a token a byte; the vocabulary is in the order of the byte alphabet.
    text = client.post("/logprobs", json={"samples": [{"prompt": PROMPT, "response": "ab"}]}).json()["results"][0]
    assert len(text["token_ids"]) == 2
    ids = client.post("/logprobs", json={"samples": [{"prompt": PROMPT, "response": text["token_ids"]}]}).json()
    assert ids["results"][0]["logprobs"] == pytest.approx(text["logprobs"], abs=1e-5)


def test_a_response_does_not_depend_on_its_neighbours(client: TestClient) -> None:
    samples = [{"prompt": PROMPT, "response": "ab"}, {"prompt": PROMPT * 5, "response": "a longer one"}]
    together = client.post("/logprobs", json={"samples": samples}).json()["results"]
    for sample, told in zip(samples, together, strict=True):
        alone = client.post("/logprobs", json={"samples": [sample]}).json()["results"][0]
        assert told["logprobs"] == pytest.approx(alone["logprobs"], abs=1e-4)


@pytest.mark.parametrize(
    ("response", "words"),
    [("", "samples.0.response is empty"), ([999], "token id 999"), ("a" * 600, "512")],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(client: TestClient, response: object, words: str) -> None:
    answer = client.post("/logprobs", json={"samples": [{"prompt": PROMPT, "response": response}]})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_an_unknown_adapter_is_not_found(client: TestClient) -> None:
    body = {"samples": [{"prompt": PROMPT, "response": "ab"}], "adapter": "nobody@1"}
    assert client.post("/logprobs", json=body).status_code == 404
