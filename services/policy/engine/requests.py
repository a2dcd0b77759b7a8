"""A request inside the engine: its rows, who waits for it, and what is checked before it is queued. No HTTP."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from rlhf.contracts.errors import InvalidInput, ServiceError, TooLarge
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import TextModel
from services.policy.engine import instruments
from services.policy.engine.rows import Extras, Row, UniformStream, sample_seed
from services.policy.engine.stops import StopMatcher

SMALLEST_TEMPERATURE = 1e-4
"""Logits divided by less leave what float32 can add up."""
SMALLEST_PENALTY = 1e-2
"""As with the temperature: positive logits are divided by it."""


Notify = Callable[[], None]
PLAIN = Extras()
"""Nothing besides tokens."""


def no_news() -> None:
    """For requests that nobody follows."""


@dataclass(frozen=True)
class Limits:
    """What the engine takes at once; see the settings of the same names."""

    max_batch_rows: int = 64
    max_batch_tokens: int = 16384
    max_prefill_tokens: int = 512
    max_request_rows: int = 1024
    max_queue: int = 256
    prefix_tokens: int = 2048


@dataclass(frozen=True)
class Outcome:
    """Finished rows in order of prompt, then sample; seconds waited and seconds computed."""

    rows: list[Row]
    queue_s: float
    inference_s: float


@dataclass(eq=False)
class EngineRequest:
    """Rows that share an adapter and a caller.

    Attributes:
        rows: all of them, in order of prompt, then sample.
        adapter: `job@version`, or None for the base model.
        seed: of the request; the rows' own derive from it.
        abandoned: set when nobody waits any more.
        outcome: resolved by the engine.
        waiting: rows that are in no batch yet, similar lengths side by side.
        queued_at: seconds, monotonic.
        started_at: when its first prompt began to be computed; None before.
        first_token_at: when its first token was there; None before.
        progressed: called in the engine's thread after its rows got tokens, and when it is answered; must not block.
    """

    rows: list[Row]
    adapter: str | None
    seed: int
    abandoned: threading.Event
    outcome: Future[Outcome] = field(default_factory=Future)
    waiting: deque[Row] = field(init=False)
    queued_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    first_token_at: float | None = None
    progressed: Notify = no_news
    _answering: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.waiting = deque(sorted(self.rows, key=lambda row: (len(row.prompt_ids), row.prompt_index)))

    def fail(self, error: ServiceError) -> None:
        """Answers with an error unless it is answered; rows still being made leave their batch."""
        self.abandoned.set()
        with self._answering:
            if not self.outcome.done():
                instruments.observe_failure(error.error_type)
                self.outcome.set_exception(error)
        self.progressed()

    def settle(self) -> bool:
        """Answers when every row is done, or one has failed. Returns whether nothing is left to do for it."""
        if self.first_token_at is None and any(row.token_ids for row in self.rows):
            self.first_token_at = time.monotonic()
        failure = next((row.failure for row in self.rows if row.failure is not None), None)
        if failure is not None:
            self.fail(failure)
        elif all(row.finish_reason is not None for row in self.rows):
            started = self.queued_at if self.started_at is None else self.started_at
            outcome = Outcome(self.rows, started - self.queued_at, time.monotonic() - started)
            with self._answering:
                if not self.outcome.done():
                    instruments.observe_success(self)
                    self.outcome.set_result(outcome)
        elif self.abandoned.is_set() and not self.outcome.done():
            instruments.observe_failure("cancelled")
            return True
        self.progressed()
        return self.outcome.done()


def build_request(
    base: TextModel,
    prompts: list[list[int]],
    sampling: SamplingParams,
    adapter: str | None,
    limits: Limits,
    extras: Extras,
) -> EngineRequest:
    """Checks a request against the model and the limits, and makes its rows.

    Args:
        base: the model.
        prompts: token ids of each prompt.
        sampling: for all of them; without a seed one is drawn.
        adapter: `job@version` or None.
        limits: of the engine.
        extras: what else to report.

    Raises:
        InvalidInput: it asks for something that this model cannot do; says the value and the cure.
        TooLarge: it has too many rows.
    """
    count = len(prompts) * sampling.n
    if count > limits.max_request_rows:
        raise TooLarge(
            f"{len(prompts)} prompts × n={sampling.n} are {count} responses, a request may ask for "
            f"{limits.max_request_rows}; send several requests, or raise RLHF_MAX_REQUEST_ROWS"
        )
    check_sampling(sampling)
    for index, ids in enumerate(prompts):
        check_length(f"prompt {index}", len(ids), sampling.max_new_tokens, base.max_positions)
    seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
    abandoned = threading.Event()
    rows = [
        Row(
            prompt_index=i,
            sample_index=j,
            prompt_ids=ids,
            sampling=sampling,
            uniforms=UniformStream(sample_seed(seed, i, j)),
            abandoned=abandoned,
            stop=StopMatcher(base.tokenizer, sampling.stop) if sampling.stop else None,
            extras=extras,
        )
        for i, ids in enumerate(prompts)
        for j in range(sampling.n)
    ]
    return EngineRequest(rows=rows, adapter=adapter, seed=seed, abandoned=abandoned)


def check_sampling(sampling: SamplingParams) -> None:
    """Refuses settings that contradict each other. Raises InvalidInput."""
    if sampling.min_new_tokens > sampling.max_new_tokens:
        raise InvalidInput(
            f"min_new_tokens={sampling.min_new_tokens} exceeds max_new_tokens={sampling.max_new_tokens}; "
            f"lower it to {sampling.max_new_tokens} or less"
        )
    if 0 < sampling.temperature < SMALLEST_TEMPERATURE:
        raise InvalidInput(
            f"temperature={sampling.temperature} is too small to divide by; send 0 for greedy decoding, or at least "
            f"{SMALLEST_TEMPERATURE}"
        )
    if sampling.repetition_penalty < SMALLEST_PENALTY:
        raise InvalidInput(f"repetition_penalty={sampling.repetition_penalty} is under {SMALLEST_PENALTY}; raise it")
    if "" in sampling.stop:
        raise InvalidInput("stop has an empty text, which would end every response at once; remove it")


def check_length(where: str, prompt: int, new: int, positions: int) -> None:
    """Refuses prompts that leave no room for the response. Raises InvalidInput. Lengths in tokens."""
    if prompt == 0:
        raise InvalidInput(f"{where} is empty; give at least one token to continue from")
    if prompt >= positions:
        raise InvalidInput(
            f"{where} has {prompt} tokens, this model can hold {positions} together with the response; "
            f"shorten the prompt to {positions - 1} or less"
        )
    if prompt + new > positions:
        raise InvalidInput(
            f"max_new_tokens={new} exceeds the {positions} tokens this model can hold together with a {prompt}-token "
            f"prompt ({where}); lower it to {positions - prompt} or less"
        )
