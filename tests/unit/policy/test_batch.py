"""Prefill and decoding against transformers' own generation and forward passes."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import MinPLogitsWarper, TypicalLogitsWarper

from rlhf.contracts.errors import GenerationFailed
from rlhf.lm.loading import LanguageModel
from services.policy.engine.batch import Batch
from services.policy.engine.forward import ModelForward, build_forward
from services.policy.engine.fused import FusedForward
from services.policy.engine.rows import Extras
from tests.unit.policy.generating import (
    PROMPTS,
    Served,
    abandoned,
    by_transformers,
    decode,
    forward_shapes,
    generate,
    make_rows,
    prefilled,
    serve,
)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "min_new_tokens": 10},
    ],
    ids=["plain", "penalty", "ngrams", "all"],
)
def test_greedy_equals_transformers_token_for_token(untouched: LanguageModel, served: Served, settings: dict) -> None:
    rows = generate(served, PROMPTS, temperature=0.0, max_new_tokens=40, **settings)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        assert row.token_ids == by_transformers(untouched, prompt, max_new_tokens=40, **settings)


def test_responses_longer_than_gpt_neos_local_window(untouched: LanguageModel, served: Served) -> None:
    prompt = [(11 * i) % 256 for i in range(60)]  # the window is 16
    rows = generate(served, [prompt, [3]], temperature=0.0, max_new_tokens=30)
    assert rows[0].token_ids == by_transformers(untouched, prompt, max_new_tokens=30)


def test_eos_ends_a_response_and_belongs_to_it(untouched: LanguageModel, served: Served) -> None:
    # Whatever token comes third in the greedy response is declared an EOS.
    third = by_transformers(untouched, PROMPTS[0], max_new_tokens=3)[2]
    more = Served(replace(served.base, eos_ids=(served.base.eos_ids[0], third)), served.forward, served.places)
    row = generate(more, PROMPTS[:1], temperature=0.0)[0]
    assert row.finish_reason == "eos_token"
    assert row.token_ids.index(third) == len(row.token_ids) - 1 <= 2
    assert len(row.behavior_logprobs) == len(row.model_logprobs) == len(row.token_ids)
    later = generate(more, PROMPTS[:1], temperature=0.0, min_new_tokens=8)[0]
    assert third not in later.token_ids[:8]


def full_logits(base: LanguageModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """[T, V] logits that predict each response token, by one plain forward pass."""
    with torch.no_grad():
        return base.model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]


def taken(logprobs: torch.Tensor, response: list[int]) -> list[float]:
    return logprobs.gather(1, torch.tensor(response)[:, None])[:, 0].tolist()


def test_logprobs_equal_an_independent_forward_pass(untouched: LanguageModel, served: Served) -> None:
    for prompt, row in zip(PROMPTS, generate(served, PROMPTS, temperature=0.7), strict=True):
        wanted = taken((full_logits(untouched, prompt, row.token_ids) / 0.7).log_softmax(-1), row.token_ids)
        assert row.model_logprobs == pytest.approx(wanted, abs=1e-4)
        assert row.behavior_logprobs == row.model_logprobs, "with plain settings they are the same"


def test_behavior_logprobs_are_of_the_filtered_and_penalised_distribution(
    untouched: LanguageModel, served: Served
) -> None:
    for prompt, row in zip(
        PROMPTS, generate(served, PROMPTS, temperature=1.5, top_k=5, repetition_penalty=1.4), strict=True
    ):
        logits = full_logits(untouched, prompt, row.token_ids)
        assert row.model_logprobs == pytest.approx(taken((logits / 1.5).log_softmax(-1), row.token_ids), abs=1e-4)
        for t, token in enumerate(row.token_ids):
            # By hand: penalise every token seen so far, divide, keep five, renormalise.
            step = logits[t].clone()
            for seen in set(prompt + row.token_ids[:t]):
                step[seen] = step[seen] / 1.4 if step[seen] > 0 else step[seen] * 1.4
            best = (step / 1.5).topk(5)
            position = best.indices.tolist().index(token)
            assert row.behavior_logprobs[t] == pytest.approx(best.values.log_softmax(-1)[position].item(), abs=1e-4)


def test_count_penalties_and_the_later_filters_reach_the_distribution(untouched: LanguageModel, served: Served) -> None:
    chosen = {"temperature": 1.5, "min_p": 0.2, "typical_p": 0.7, "frequency_penalty": 0.3, "presence_penalty": 0.5}
    for prompt, row in zip(PROMPTS, generate(served, PROMPTS, **chosen), strict=True):
        logits = full_logits(untouched, prompt, row.token_ids)
        for t, token in enumerate(row.token_ids):
            # In this order: penalise by counts, divide, min-p, typical.
            counts = torch.bincount(torch.tensor(prompt + row.token_ids[:t]), minlength=logits.shape[1])
            step = ((logits[t] - 0.3 * counts - 0.5 * (counts > 0)) / 1.5)[None]
            step = TypicalLogitsWarper(0.7)(torch.zeros(1, 1), MinPLogitsWarper(0.2)(torch.zeros(1, 1), step))[0]
            assert row.behavior_logprobs[t] == pytest.approx(step.log_softmax(-1)[token].item(), abs=1e-4)


def test_greedy_logprobs_are_those_of_temperature_one(untouched: LanguageModel, served: Served) -> None:
    row = generate(served, PROMPTS[:1], temperature=0.0)[0]
    wanted = taken(full_logits(untouched, PROMPTS[0], row.token_ids).log_softmax(-1), row.token_ids)
    assert row.behavior_logprobs == pytest.approx(wanted, abs=1e-4)
    assert row.model_logprobs == row.behavior_logprobs


def test_a_seed_gives_the_same_text_whatever_shares_the_batch(served: Served) -> None:
    first = generate(served, [PROMPTS[0]], n=2, top_p=0.9)
    others = make_rows(served.base, [PROMPTS[2], PROMPTS[1]], seed=99, max_new_tokens=5, repetition_penalty=1.5, n=3)
    again = make_rows(served.base, [PROMPTS[0]], n=2, top_p=0.9)
    decode(served, [*others[:3], *again, *others[3:]])
    assert [row.token_ids for row in again] == [row.token_ids for row in first]
    assert first[0].token_ids != first[1].token_ids, "samples of one prompt differ"
    assert generate(served, [PROMPTS[0]], seed=8)[0].token_ids != first[0].token_ids


def test_a_longer_limit_continues_the_same_text(served: Served) -> None:
    short, long = (generate(served, [PROMPTS[0]], max_new_tokens=n, min_new_tokens=n)[0] for n in (5, 100))
    assert long.token_ids[:5] == short.token_ids
    assert len(long.token_ids) == 100


def test_each_row_has_its_own_settings(served: Served) -> None:
    greedy = make_rows(served.base, [PROMPTS[0]], temperature=0.0, max_new_tokens=9)
    sampled = make_rows(served.base, [PROMPTS[0]], temperature=2.0, min_new_tokens=16)
    decode(served, [*sampled, *greedy])
    assert greedy[0].token_ids == generate(served, [PROMPTS[0]], temperature=0.0, max_new_tokens=9)[0].token_ids
    assert len(sampled[0].token_ids) == 16
    assert sampled[0].token_ids[:9] != greedy[0].token_ids


def test_prompts_are_computed_once_and_finished_rows_no_more(served: Served) -> None:
    short = make_rows(served.base, [PROMPTS[0], PROMPTS[1]], n=2, max_new_tokens=2, min_new_tokens=2)
    long = make_rows(served.base, [PROMPTS[0]], max_new_tokens=4, min_new_tokens=4)
    with forward_shapes(served.forward) as shapes:
        decode(served, [*short, *long])
    # Two distinct prompts, the longer of 5 tokens; then 5 rows for one step, and the long row alone for two more.
    assert shapes == [(2, 5), (5, 1), (1, 1), (1, 1)]


def test_rows_that_leave_do_not_disturb_those_that_stay(served: Served) -> None:
    lengths = [3, 12, 1, 7, 12, 2]
    rows = [
        make_rows(served.base, [prompt], max_new_tokens=limit, min_new_tokens=limit)[0]
        for prompt, limit in zip(PROMPTS + PROMPTS[:2], lengths, strict=True)
    ]
    decode(served, rows)
    assert [len(row.token_ids) for row in rows] == lengths
    for row in rows:
        limit = len(row.token_ids)
        single = generate(served, [row.prompt_ids], max_new_tokens=limit, min_new_tokens=limit)[0]
        assert row.token_ids == single.token_ids
        assert row.model_logprobs == pytest.approx(single.model_logprobs, abs=1e-4)


def test_abandoned_rows_leave_at_the_next_step(served: Served) -> None:
    rows = make_rows(served.base, [PROMPTS[0]], max_new_tokens=100, min_new_tokens=100)
    rows[0].abandoned = abandoned()
    with forward_shapes(served.forward) as shapes:
        decode(served, rows)
    assert rows[0].finish_reason is None
    assert len(shapes) == 1, "nothing after the prompt"


def test_a_row_that_has_no_token_left_fails_by_itself(served: Served) -> None:
    # Of 258 tokens none may come twice, and EOS may not come at all.
    doomed = make_rows(served.base, [[1]], no_repeat_ngram_size=1, max_new_tokens=300, min_new_tokens=300)
    sound = make_rows(served.base, [[1]], max_new_tokens=20, min_new_tokens=20)
    decode(served, [*doomed, *sound])
    assert isinstance(doomed[0].failure, GenerationFailed)
    # The prompt has one of the 258 tokens, and EOS is banned: 256 can be made.
    assert "after 256 tokens" in doomed[0].failure.message
    assert "no_repeat_ngram_size=1" in doomed[0].failure.message
    assert sound[0].finish_reason == "length"


def test_logits_that_are_not_numbers_fail_the_row(llama: LanguageModel) -> None:
    broken = serve(llama)
    with torch.no_grad():
        llama.model.model.norm.weight.fill_(math.nan)
    row = generate(broken, [[1]])[0]
    assert isinstance(row.failure, GenerationFailed)
    assert "not numbers" in row.failure.message


def test_stop_texts_end_a_row_and_token_ids_keep_them(served: Served) -> None:
    free = generate(served, [PROMPTS[0]], seed=3, max_new_tokens=30, min_new_tokens=30)[0]
    visible = [served.base.tokenizer.decode([token]) for token in free.token_ids]
    at = next(i for i, text in enumerate(visible) if i > 3 and text.isascii() and text not in visible[:i])
    row = generate(served, [PROMPTS[0]], seed=3, max_new_tokens=30, min_new_tokens=30, stop=[visible[at]])[0]
    assert row.finish_reason == "stop_sequence"
    assert row.token_ids == free.token_ids[: at + 1]


def test_rows_that_join_later_say_what_they_say_alone(served: Served) -> None:
    settings = {"max_new_tokens": 90, "min_new_tokens": 90, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3}
    prompts = [PROMPTS[1], PROMPTS[0], [(11 * i) % 256 for i in range(70)], PROMPTS[3]]
    alone = [generate(served, [prompt], **settings)[0] for prompt in prompts]
    rows = [make_rows(served.base, [prompt], **settings)[0] for prompt in prompts]
    batch = Batch(served.forward, served.base.eos_ids)
    # One joins every 20 steps: a prompt longer than all that is there, and shorter ones; buffers grow and slide.
    waiting = list(rows)
    for step in range(200):
        if step % 20 == 0 and waiting:
            batch.join(prefilled(served, [waiting.pop(0)]))
        if batch.rows:
            batch.step()
    for row, single in zip(rows, alone, strict=True):
        assert row.token_ids == single.token_ids
        assert row.model_logprobs == pytest.approx(single.model_logprobs, abs=1e-4)


@pytest.mark.parametrize("tokens", [1, 3, 7])
def test_a_prompt_computed_in_parts_is_the_same(served: Served, tokens: int) -> None:
    rows = make_rows(served.base, PROMPTS, temperature=0.0)
    batch = Batch(served.forward, served.base.eos_ids)
    batch.join(prefilled(served, rows, tokens))
    while batch.rows:
        batch.step()
    whole = generate(served, PROMPTS, temperature=0.0)
    assert [row.token_ids for row in rows] == [row.token_ids for row in whole]


def test_a_part_of_a_prefill_has_no_more_tokens_than_allowed(served: Served) -> None:
    rows = make_rows(served.base, PROMPTS)  # 4 prompts, the longest of 11 tokens
    with forward_shapes(served.forward) as shapes:
        prefilled(served, rows, tokens=18)
    assert shapes == [(4, 4), (4, 4), (4, 3)]


def test_prompt_logprobs_are_those_of_a_plain_forward_pass(untouched: LanguageModel, served: Served) -> None:
    rows = make_rows(served.base, PROMPTS, Extras(prompt_logprobs=True), temperature=0.5)
    prefilled(served, rows, tokens=8)
    for prompt, row in zip(PROMPTS, rows, strict=True):
        wanted = taken(full_logits(untouched, prompt[:1], prompt[1:]).log_softmax(-1), prompt[1:])
        assert row.prompt_logprobs == pytest.approx(wanted, abs=1e-4)


def test_the_likeliest_tokens_are_of_the_distribution_sampled_from(untouched: LanguageModel, served: Served) -> None:
    asking = make_rows(served.base, PROMPTS[:1], Extras(top_logprobs=3), temperature=0.8)
    silent = make_rows(served.base, PROMPTS[1:2], temperature=0.8)
    decode(served, [*asking, *silent])
    logprobs = (full_logits(untouched, PROMPTS[0], asking[0].token_ids) / 0.8).log_softmax(-1)
    for step, top in enumerate(asking[0].top_logprobs):
        best = logprobs[step].topk(3)
        assert [token for token, _ in top] == best.indices.tolist()
        assert [value for _, value in top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert len(asking[0].top_logprobs) == len(asking[0].token_ids)
    assert silent[0].top_logprobs == []


def test_a_forward_pass_that_differs_from_the_models_own_is_refused(
    llama: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FusedForward, "_norms", lambda self, x, weight: x)
    with pytest.raises(ValueError, match="cannot be served yet"):
        build_forward(llama, packed=True)


def test_other_families_are_served_by_their_own_forward_pass(served: Served, family: str) -> None:
    assert isinstance(served.forward, ModelForward) == (family == "gpt_neo")
