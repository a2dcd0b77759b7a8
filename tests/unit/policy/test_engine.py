"""The engine's thread: what is batched together, what is refused, how it stops, that it survives failures."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import GenerationFailed, InternalError, NotFound, Overloaded, TooLarge, Unavailable
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from services.policy.engine import engine as engine_module
from services.policy.engine.adapters import AdapterLibrary
from services.policy.engine.engine import Engine
from services.policy.engine.linears import install_linears
from services.policy.engine.requests import Limits
from tests.unit.policy.generating import PROMPTS, forward_shapes, generate
from tests.unit.policy.publishing import publish

FOUR = SamplingParams(max_new_tokens=4, min_new_tokens=4, seed=1)
ENDLESS = SamplingParams(max_new_tokens=480, min_new_tokens=480, seed=1)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


@pytest.fixture
def engine(llama: LanguageModel, store: ArtifactStore) -> Iterator[Engine]:
    """Not started: what is submitted waits until `start`."""
    library = AdapterLibrary(store, install_linears(llama.model, packed=True), 2)
    engine = Engine(llama, library, Limits(max_batch_rows=8, max_request_rows=100, max_queue=5), threads=1)
    yield engine
    engine.stop()


def wait_until(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_waiting_requests_for_one_adapter_share_a_batch(engine: Engine) -> None:
    requests = [engine.submit([prompt], FOUR) for prompt in PROMPTS[:3]]
    with forward_shapes(engine.base.model) as shapes:
        engine.start()
        outcomes = [request.outcome.result(300) for request in requests]
    assert [rows for rows, _ in shapes] == [3, 3, 3, 3]
    for prompt, outcome in zip(PROMPTS, outcomes, strict=False):
        alone = generate(engine.base, [prompt], max_new_tokens=4, min_new_tokens=4, seed=1)
        assert [row.token_ids for row in outcome.rows] == [row.token_ids for row in alone]


def test_a_request_that_does_not_fit_waits_and_a_smaller_one_goes_along(engine: Engine) -> None:
    six, four, two = (engine.submit([PROMPTS[0]], FOUR.model_copy(update={"n": n})) for n in (6, 4, 2))
    with forward_shapes(engine.base.model) as shapes:
        engine.start()
        for request in (six, four, two):
            request.outcome.result(300)
    # 6 + 2 of at most 8 rows first, then the 4; the prompt itself is one row each time.
    assert [rows for rows, _ in shapes] == [1, 8, 8, 8, 1, 4, 4, 4]


def test_a_large_request_runs_in_several_batches_in_order_of_prompt_and_sample(engine: Engine) -> None:
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[2]]
    request = engine.submit(prompts, FOUR.model_copy(update={"n": 4}))
    with forward_shapes(engine.base.model) as shapes:
        engine.start()
        outcome = request.outcome.result(300)
    # 12 rows, 8 at a time; the shortest prompts (1 and 5 tokens) come first, the one of 11 by itself.
    assert shapes == [(2, 5), (8, 1), (8, 1), (8, 1), (1, 11), (4, 1), (4, 1), (4, 1)]
    assert [(row.prompt_index, row.sample_index) for row in outcome.rows] == [
        (i, j) for i in range(3) for j in range(4)
    ]
    assert all(len(row.token_ids) == 4 for row in outcome.rows)


def test_the_token_budget_bounds_a_batch(llama: LanguageModel, engine: Engine) -> None:
    # Width is 5 prompt + 4 new = 9 tokens, so 20 hold two rows.
    engine.limits = Limits(max_batch_rows=8, max_batch_tokens=20)
    request = engine.submit([PROMPTS[0]], FOUR.model_copy(update={"n": 5}))
    with forward_shapes(llama.model) as shapes:
        engine.start()
        request.outcome.result(300)
    assert [rows for rows, columns in shapes if columns == 1] == [2, 2, 2, 2, 2, 2, 1, 1, 1]


def test_rows_that_only_together_exceed_the_models_length_are_parted(engine: Engine) -> None:
    long_prompt = engine.submit([[7] * 500], SamplingParams(max_new_tokens=2, seed=1))
    long_response = engine.submit([[7]], SamplingParams(max_new_tokens=20, min_new_tokens=20, seed=1))
    with forward_shapes(engine.base.model) as shapes:
        engine.start()
        assert len(long_prompt.outcome.result(300).rows[0].token_ids) <= 2
        assert len(long_response.outcome.result(300).rows[0].token_ids) == 20
    assert {rows for rows, _ in shapes} == {1}  # 500 + 20 is over 512


def test_requests_for_base_and_adapter_are_not_mixed(
    engine: Engine, store: ArtifactStore, folders: dict[str, Path]
) -> None:
    ref = publish(store, folders["llama"], "job", 1)
    plain = generate(engine.base, [PROMPTS[0]], max_new_tokens=4, min_new_tokens=4, seed=1)[0]
    refs = [None, ref, None, ref]
    requests = [engine.submit([PROMPTS[0]], FOUR, adapter) for adapter in refs]
    engine.start()
    rows = [request.outcome.result(300).rows[0] for request in requests]
    assert rows[0].model_logprobs == rows[2].model_logprobs == pytest.approx(plain.model_logprobs, abs=1e-5)
    assert rows[1].model_logprobs == rows[3].model_logprobs
    assert rows[0].model_logprobs != pytest.approx(rows[1].model_logprobs, abs=1e-3)
    assert engine.adapters == [ref]


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
        patched.setattr(engine_module, "decode", lambda base, rows: 1 / 0)
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
    with forward_shapes(engine.base.model) as shapes:
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
    with forward_shapes(engine.base.model) as shapes:
        engine.start()
        kept.outcome.result(300)
    assert shapes == [(1, 1)] * 4  # the prompt has one token


def test_without_a_seed_each_request_draws_its_own(engine: Engine) -> None:
    free = FOUR.model_copy(update={"seed": None})
    assert engine.submit([PROMPTS[0]], free).seed != engine.submit([PROMPTS[0]], free).seed
