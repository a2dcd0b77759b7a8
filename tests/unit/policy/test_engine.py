"""The engine's thread: what is batched together, what is refused, how it stops, that it survives failures."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import GenerationFailed, InternalError, NotFound, Overloaded, TooLarge, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.batch import Batch
from services.policy.engine.engine import Engine
from services.policy.engine.requests import Limits
from services.policy.engine.rows import Row
from tests.unit.policy.generating import PROMPTS, REPORTED, Served, forward_shapes, generate, serve
from tests.unit.policy.publishing import publish

FOUR = SamplingParams(max_new_tokens=4, min_new_tokens=4, seed=1)
ENDLESS = SamplingParams(max_new_tokens=480, min_new_tokens=480, seed=1)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def engine(llama: LanguageModel, store: ArtifactStore) -> Iterator[Engine]:
    """Not started: what is submitted waits until `start`."""
    served = serve(llama)
    library = AdapterLibrary(store, served.places, 2**20)
    limits = Limits(max_batch_rows=8, max_request_rows=100, max_queue=5)
    engine = Engine(llama, served.forward, library, limits, threads=1)
    yield engine
    engine.stop()


def alone(engine: Engine, prompt: list[int], **sampling: Any) -> Row:
    """What the engine's model says to one prompt when nothing else runs."""
    return generate(Served(engine.base, engine._forward, {}), [prompt], **sampling)[0]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_waiting_requests_for_one_adapter_share_a_batch(engine: Engine) -> None:
    requests = [engine.submit([prompt], FOUR) for prompt in PROMPTS[:3]]
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        outcomes = [request.outcome.result(300) for request in requests]
    assert shapes == [(3, 11), (3, 1), (3, 1), (3, 1)]
    for prompt, outcome in zip(PROMPTS, outcomes, strict=False):
        single = alone(engine, prompt, max_new_tokens=4, min_new_tokens=4, seed=1)
        assert [row.token_ids for row in outcome.rows] == [single.token_ids]


def test_a_request_joins_those_that_run_and_leaves_before_them(engine: Engine) -> None:
    long = engine.submit([PROMPTS[0]], ENDLESS)
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        wait_until(lambda: len(shapes) > 3)
        short = engine.submit([PROMPTS[2]], FOUR)
        tokens = short.outcome.result(300).rows[0].token_ids
        assert not long.outcome.done()
    assert tokens == alone(engine, PROMPTS[2], max_new_tokens=4, min_new_tokens=4, seed=1).token_ids
    at = shapes.index((1, 11))
    assert shapes[at : at + 5] == [(1, 11), (2, 1), (2, 1), (2, 1), (1, 1)]
    same = alone(engine, PROMPTS[0], max_new_tokens=480, min_new_tokens=480, seed=1).token_ids
    assert long.outcome.result(300).rows[0].token_ids == same


def test_rows_beyond_the_limit_join_as_others_leave(engine: Engine) -> None:
    six, four = (engine.submit([PROMPTS[0]], FOUR.model_copy(update={"n": n})) for n in (6, 4))
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        for request in (six, four):
            request.outcome.result(300)
    # 6 + 2 of at most 8 rows; when they are done, the 2 that were left. A prompt is computed once for all its rows.
    assert shapes == [(1, 5), (8, 1), (8, 1), (8, 1), (1, 5), (2, 1), (2, 1), (2, 1)]


def test_a_large_request_is_answered_in_order_of_prompt_and_sample(engine: Engine) -> None:
    request = engine.submit(PROMPTS[:3], FOUR.model_copy(update={"n": 4}))
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        outcome = request.outcome.result(300)
    # 12 rows, 8 at a time; the shortest prompts (1 and 5 tokens) come first, the one of 11 by itself.
    assert shapes == [(2, 5), (8, 1), (8, 1), (8, 1), (1, 11), (4, 1), (4, 1), (4, 1)]
    assert [(row.prompt_index, row.sample_index) for row in outcome.rows] == [
        (i, j) for i in range(3) for j in range(4)
    ]
    assert all(len(row.token_ids) == 4 for row in outcome.rows)


def test_the_token_budget_bounds_what_runs(engine: Engine) -> None:
    # Width is 5 prompt + 4 new = 9 tokens, so 20 hold two rows.
    engine.limits = Limits(max_batch_rows=8, max_batch_tokens=20)
    request = engine.submit([PROMPTS[0]], FOUR.model_copy(update={"n": 5}))
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        request.outcome.result(300)
    assert [rows for rows, columns in shapes if columns == 1] == [2, 2, 2, 2, 2, 2, 1, 1, 1]


def test_a_long_prompt_does_not_stall_those_that_run(engine: Engine) -> None:
    engine.limits = Limits(max_prefill_tokens=50)
    running = engine.submit([PROMPTS[1]], ENDLESS)
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        wait_until(lambda: len(shapes) > 3)
        long = engine.submit([[7] * 120], FOUR)
        long.outcome.result(300)
        running.abandoned.set()
    at = next(i for i, (_, columns) in enumerate(shapes) if columns == 50)
    assert shapes[at : at + 6] == [(1, 50), (1, 1), (1, 50), (1, 1), (1, 20), (2, 1)]


def test_prompts_of_one_request_are_computed_before_its_tokens(engine: Engine) -> None:
    """A token for half of its rows would bring its answer no nearer."""
    engine.limits = Limits(max_batch_rows=8, max_prefill_tokens=11)
    request = engine.submit([PROMPTS[2], PROMPTS[0], PROMPTS[3]], FOUR)
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        request.outcome.result(300)
    # Prompts of 3 and 5 tokens together are 2 × 5; then that of 11.
    assert shapes == [(2, 5), (1, 11), (3, 1), (3, 1), (3, 1)]


def test_requests_for_base_and_adapter_are_not_mixed(
    engine: Engine, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "job", 1)
    plain = alone(engine, PROMPTS[0], max_new_tokens=4, min_new_tokens=4, seed=1)
    refs = [None, ref, None, ref]
    requests = [engine.submit([PROMPTS[0]], FOUR, adapter, REPORTED) for adapter in refs]
    engine.start()
    rows = [request.outcome.result(300).rows[0] for request in requests]
    assert rows[0].model_logprobs == rows[2].model_logprobs == pytest.approx(plain.model_logprobs, abs=1e-5)
    assert rows[1].model_logprobs == rows[3].model_logprobs
    assert rows[0].model_logprobs != pytest.approx(rows[1].model_logprobs, abs=1e-3)
    assert engine.adapters == [ref]


def test_requests_for_two_adapters_run_side_by_side(
    engine: Engine, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    refs = [publish(store, folders["llama"], "job", version, seed=version) for version in (1, 2)]
    requests = [engine.submit([PROMPTS[0]], ENDLESS, ref) for ref in refs]
    engine.start()
    wait_until(lambda: all(len(request.rows[0].token_ids) > 5 for request in requests))
    assert not any(request.outcome.done() for request in requests)
    assert set(engine.adapters) == set(refs)
    first, second = (request.outcome.result(300).rows[0].token_ids for request in requests)
    assert first != second
    assert engine.submit([PROMPTS[0]], ENDLESS, refs[0]).outcome.result(300).rows[0].token_ids == first


def test_a_failing_adapter_fails_its_requests_only(engine: Engine) -> None:
    bad, good = engine.submit([PROMPTS[0]], FOUR, "nobody@1"), engine.submit([PROMPTS[0]], FOUR)
    engine.start()
    with pytest.raises(NotFound):
        bad.outcome.result(300)
    assert good.outcome.result(300).rows[0].finish_reason == "length"


def test_a_row_that_fails_fails_its_request_with_the_reason(engine: Engine) -> None:
    sampling = SamplingParams(max_new_tokens=300, min_new_tokens=300, no_repeat_ngram_size=1, seed=1)
    doomed = engine.submit([PROMPTS[1]], sampling)
    engine.start()
    with pytest.raises(GenerationFailed, match="no token was allowed"):
        doomed.outcome.result(300)


def test_an_unexpected_error_is_answered_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Batch, "step", lambda self: 1 / 0)
        request = engine.submit([PROMPTS[0]], FOUR)
        engine.start()
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            request.outcome.result(300)
    assert engine.submit([PROMPTS[0]], FOUR).outcome.result(300).rows


def test_a_full_queue_refuses_with_a_time_to_come_back(engine: Engine) -> None:
    for _ in range(5):
        engine.submit([PROMPTS[0]], FOUR)
    with pytest.raises(Overloaded, match="5 requests are waiting") as caught:
        engine.submit([PROMPTS[0]], FOUR)
    assert caught.value.retry_after


def test_too_many_responses_are_refused(engine: Engine) -> None:
    with pytest.raises(TooLarge, match="3 prompts × n=40 are 120 responses, a request may ask for 100"):
        engine.submit(PROMPTS[:3], FOUR.model_copy(update={"n": 40}))


def test_drain_finishes_what_is_there_and_refuses_what_comes(engine: Engine) -> None:
    running = engine.submit([PROMPTS[0]], ENDLESS)
    engine.start()
    drained: list[bool] = []
    thread = threading.Thread(target=lambda: drained.append(engine.drain(300)))
    thread.start()
    wait_until(lambda: engine._draining)
    with pytest.raises(Unavailable, match="stopping"):
        engine.submit([PROMPTS[0]], FOUR)
    thread.join(300)
    assert drained == [True]
    assert len(running.outcome.result(0).rows[0].token_ids) == 480


def test_stop_answers_running_and_waiting_requests(engine: Engine) -> None:
    engine.limits = Limits(max_batch_rows=1)
    requests = [engine.submit([PROMPTS[0]], ENDLESS) for _ in range(2)]
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        wait_until(lambda: len(shapes) > 3)
        assert not engine.drain(0.0)
        engine.stop(300)
    for request in requests:
        with pytest.raises(Unavailable, match="send it again"):
            request.outcome.result(0)
    assert not engine.alive


def test_abandoned_requests_cost_nothing_more(engine: Engine) -> None:
    gone, kept = engine.submit([PROMPTS[0]], ENDLESS), engine.submit([PROMPTS[1]], FOUR)
    gone.abandoned.set()
    with forward_shapes(engine._forward) as shapes:
        engine.start()
        kept.outcome.result(300)
    assert shapes == [(1, 1)] * 4  # the prompt has one token


def test_without_a_seed_each_request_draws_its_own(engine: Engine) -> None:
    free = FOUR.model_copy(update={"seed": None})
    assert engine.submit([PROMPTS[0]], free).seed != engine.submit([PROMPTS[0]], free).seed
