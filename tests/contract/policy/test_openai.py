"""OpenAI's dialect, asked by OpenAI's own client, which checks the answers' shapes as its users rely on them."""

import json
import math
from pathlib import Path

import openai
import pytest
from fastapi.testclient import TestClient

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import ErrorBody
from tests.contract.policy.conftest import KEY
from tests.contract.policy.test_native import EXTRAS
from tests.contract.policy.test_native import ask as ask_native
from tests.unit.policy.publishing import publish

TURNS = [{"role": "user", "content": "hi"}]


@pytest.fixture
def ai(client: TestClient) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url="http://testserver/v1", http_client=client, max_retries=0)


def refused(client: TestClient, path: str, status: int, body: dict) -> str:
    # json.dumps spells a lone surrogate as an escape, as a client in another language may.
    answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    return ErrorBody.model_validate_json(answer.content).error


def test_a_chat_is_the_native_answer_to_the_same_conversation(client: TestClient, ai: openai.OpenAI) -> None:
    native = ask_native(client, [TURNS], EXTRAS, sampling={"n": 2, "max_new_tokens": 12, "top_p": 0.9}).results
    answer = ai.chat.completions.create(
        model="whatever", messages=TURNS, n=2, seed=1, max_completion_tokens=12, top_p=0.9, logprobs=True
    )
    assert [choice.message.content for choice in answer.choices] == [result.text for result in native]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.model == "whatever"
    assert answer.usage.prompt_tokens == 21, "the prompt counts once; see the native test for the sum"
    assert answer.usage.completion_tokens == sum(result.generated_tokens for result in native)
    for choice, result in zip(answer.choices, native, strict=True):
        assert choice.finish_reason == ("length" if result.finish_reason == "length" else "stop")
        given = [token.logprob for token in choice.logprobs.content]
        assert given == pytest.approx(result.behavior_logprobs[: len(given)])
        assert all(bytes(token.bytes).decode() == token.token for token in choice.logprobs.content)


def test_a_completion_continues_raw_text(client: TestClient, ai: openai.OpenAI) -> None:
    tgi = client.post("/generate", json={"inputs": "hi", "parameters": {"max_new_tokens": 16}}).json()
    answer = ai.completions.create(model="base", prompt="hi", temperature=0, logprobs=0)
    choice = answer.choices[0]
    assert choice.text == tgi["generated_text"], "greedy, 16 tokens unless told otherwise, no chat template"
    assert answer.usage.prompt_tokens == 2  # two bytes
    assert answer.usage.completion_tokens <= 16
    assert len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) == len(choice.logprobs.text_offset)
    assert all(math.isfinite(value) and value < 0 for value in choice.logprobs.token_logprobs)


def test_several_prompts_and_samples_are_numbered_by_prompt_then_sample(ai: openai.OpenAI) -> None:
    together = ai.completions.create(model="base", prompt=["ab", "xyz"], n=2, seed=5, max_tokens=6)
    assert [choice.index for choice in together.choices] == [0, 1, 2, 3]
    assert together.usage.prompt_tokens == 2 + 3
    alone = ai.completions.create(model="base", prompt="ab", n=2, seed=5, max_tokens=6)
    assert [c.text for c in alone.choices] == [c.text for c in together.choices[:2]]


def test_a_model_named_job_at_version_is_an_adapter(
    client: TestClient, ai: openai.OpenAI, store: ArtifactStore, model_folder: Path
) -> None:
    publish(store, model_folder, "openai-job", 3)
    base = ai.completions.create(model="tiny-llama", prompt="hello", temperature=0)
    adapted = ai.completions.create(model="openai-job@3", prompt="hello", temperature=0)
    native = client.post(
        "/generate", json={"inputs": "hello", "parameters": {"adapter_id": "openai-job@3", "max_new_tokens": 16}}
    ).json()
    assert adapted.choices[0].text == native["generated_text"] != base.choices[0].text
    listed = {model.id: model for model in ai.models.list()}
    assert listed["tiny-llama"].parent is None
    assert listed["openai-job@3"].parent == "tiny-llama"
    with pytest.raises(openai.NotFoundError) as caught:
        ai.completions.create(model="nobody@1", prompt="hello")
    assert "nobody@1 does not exist" in caught.value.body


def test_prompts_may_be_token_ids(ai: openai.OpenAI) -> None:
    text = ai.completions.create(model="base", prompt="hi", temperature=0)
    ids = ai.completions.create(model="base", prompt=[ord("h") - 33, ord("i") - 33], temperature=0)
    several = ai.completions.create(model="base", prompt=[[ord("h") - 33, ord("i") - 33], [5]], temperature=0)
    assert text.choices[0].text == ids.choices[0].text == several.choices[0].text
    assert len(several.choices) == 2


def test_the_likeliest_tokens_begin_with_the_greedy_one(ai: openai.OpenAI) -> None:
    chat = ai.chat.completions.create(model="base", messages=TURNS, temperature=0, logprobs=True, top_logprobs=3)
    for token in chat.choices[0].logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)
    completion = ai.completions.create(model="base", prompt="hi", temperature=0, logprobs=2).choices[0].logprobs
    for chosen, top in zip(completion.token_logprobs, completion.top_logprobs, strict=True):
        assert max(top.values()) == pytest.approx(chosen)


def test_a_stream_says_what_the_whole_answer_says(ai: openai.OpenAI) -> None:
    settings = {"model": "base", "messages": TURNS, "n": 2, "seed": 5, "max_tokens": 12, "logprobs": True}
    whole = ai.chat.completions.create(**settings)
    chunks = list(ai.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        own = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(c.delta.content for c in own) == choice.message.content
        assert [c.finish_reason for c in own if c.finish_reason] == [choice.finish_reason]
        assert own[-1].finish_reason, "the last one tells"
        tokens = [token for c in own if c.logprobs for token in c.logprobs.content]
        assert [t.logprob for t in tokens] == pytest.approx([t.logprob for t in choice.logprobs.content])


def test_a_completion_streams_without_its_stop_text(ai: openai.OpenAI) -> None:
    free = ai.completions.create(model="base", prompt="hi", temperature=0).choices[0].text
    stop = free[6:9]
    settings = {"model": "base", "prompt": "hi", "temperature": 0, "stop": stop, "logprobs": 0}
    whole = ai.completions.create(**settings).choices[0]
    pieces = [chunk.choices[0] for chunk in ai.completions.create(**settings, stream=True)]
    assert "".join(piece.text for piece in pieces) == whole.text == free[: free.index(stop)]
    assert pieces[-1].finish_reason == whole.finish_reason == "stop"
    offsets = [offset for piece in pieces for offset in piece.logprobs.text_offset]
    assert offsets == whole.logprobs.text_offset


def test_an_error_after_the_first_token_is_an_event(client: TestClient) -> None:
    # Of 258 tokens none may come twice, and EOS not at all: 255 can follow a prompt of two.
    body = {"prompt": "hi", "max_tokens": 300, "min_tokens": 300, "no_repeat_ngram_size": 1, "stream": True, "seed": 1}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert len(lines) > 100
    assert lines[-1] == "[DONE]"
    error = ErrorBody.model_validate_json(lines[-2])
    assert error.error_type == "generation"
    assert "after 255 tokens no token was allowed" in error.error


def test_such_an_event_is_the_clients_error(ai: openai.OpenAI) -> None:
    extra = {"min_tokens": 300, "no_repeat_ngram_size": 1}
    pieces = ai.completions.create(model="base", prompt="hi", max_tokens=300, stream=True, extra_body=extra)
    with pytest.raises(openai.APIError) as caught:
        list(pieces)
    assert "no token was allowed" in caught.value.body


def test_the_client_puts_deltas_together_to_the_whole_answer(ai: openai.OpenAI) -> None:
    settings = {"model": "base", "messages": TURNS, "n": 2, "seed": 5, "max_tokens": 12, "temperature": 0.8}
    whole = ai.chat.completions.create(**settings)
    with ai.chat.completions.stream(**settings) as stream:
        stream.until_done()
        # The final completion is refused by the client where a length limit ended it; this is the same before that.
        together = stream.current_completion_snapshot
    assert [(c.message.role, c.message.content, c.finish_reason) for c in together.choices] == [
        (c.message.role, c.message.content, c.finish_reason) for c in whole.choices
    ]
    assert together.system_fingerprint == whole.system_fingerprint != ""


def test_a_delta_has_only_what_is_new(client: TestClient) -> None:
    body = {"messages": TURNS, "max_tokens": 3, "temperature": 0, "stream": True}
    lines = client.post("/v1/chat/completions", json=body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert set(events[0]) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert all(set(delta) == {"content"} for delta in deltas[1:])
    assert len({event["id"] for event in events}) == 1


def test_stop_text_parts_and_the_developer_role(client: TestClient, ai: openai.OpenAI) -> None:
    parts = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
    ]
    plain = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    whole = ai.chat.completions.create(model="base", messages=plain, temperature=0, max_tokens=20)
    again = ai.chat.completions.create(model="base", messages=parts, temperature=0, max_tokens=20)
    text = whole.choices[0].message.content
    assert again.choices[0].message.content == text
    end = text[len(text) // 2]
    cut = ai.chat.completions.create(model="base", messages=plain, temperature=0, max_tokens=20, stop=end)
    assert cut.choices[0].message.content == text[: text.index(end)]
    assert cut.choices[0].finish_reason == "stop"


def test_extensions_go_in_the_extra_body(ai: openai.OpenAI) -> None:
    answer = ai.completions.create(
        model="base",
        prompt="hi",
        max_tokens=30,
        temperature=0,
        extra_body={"no_repeat_ngram_size": 1, "min_tokens": 30},
        logprobs=0,
    )
    assert answer.usage.completion_tokens == 30
    tokens = answer.choices[0].logprobs.tokens
    assert len([t for t in tokens if t]) == len({t for t in tokens if t}), "no token twice"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/completions", {"prompt": "hi", "stream_options": {"include_usage": True}}, "needs stream=true"),
        ("/v1/completions", {"prompt": "hi", "logprobs": 6}, "logprobs"),
        ("/v1/completions", {"prompt": [1, 258]}, "prompt 0 has the token id 258; this model's are 0 to 257"),
        ("/v1/completions", {"prompt": [[]]}, "prompt 0 is empty"),
        ("/v1/completions", {"prompt": "hi", "echo": True}, "echo: unknown field"),
        ("/v1/completions", {"prompt": ""}, "inputs is empty"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": "hi", "temperature": 3}, "temperature"),
        ("/v1/completions", {"prompt": "hi", "max_tokens": 600}, "max_new_tokens=600 exceeds the 512 tokens"),
        ("/v1/completions", {"prompt": "hi", "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ("/v1/completions", {"prompt": "\ud800"}, "lone surrogate"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ("/v1/chat/completions", {"messages": TURNS, "tools": []}, "tools: unknown field"),
        ("/v1/chat/completions", {"messages": TURNS, "top_logprobs": 2}, "needs logprobs=true"),
        ("/v1/chat/completions", {"messages": TURNS, "max_tokens": 4, "max_completion_tokens": 5}, "send one of them"),
    ],
)
def test_what_is_refused_is_named(client: TestClient, path: str, body: dict, words: str) -> None:
    assert words in refused(client, path, 422, body)


def test_a_wrong_key_is_the_clients_authentication_error(client: TestClient) -> None:
    stranger = openai.OpenAI(api_key="wrong", base_url="http://testserver/v1", http_client=client, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
