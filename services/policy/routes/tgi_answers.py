"""TGI's bodies in our terms, and our outcomes in TGI's."""

from __future__ import annotations

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.policy import SamplingParams
from rlhf.contracts.tgi import (
    TgiBestOfSequence,
    TgiDetails,
    TgiParameters,
    TgiPrefillToken,
    TgiRequest,
    TgiResponse,
    TgiSequence,
    TgiStreamDetails,
    TgiStreamResponse,
    TgiToken,
)
from rlhf.lm.loading import TextModel
from rlhf.serving.service import describe_validation
from services.policy.engine.requests import EngineRequest, Outcome
from services.policy.engine.rows import Extras, Row
from services.policy.engine.stops import response_text
from services.policy.routes.text_stream import Piece, TextStream, pieces_of

DEFAULT_NEW_TOKENS = 100
NOT_OFFERED = ("grammar", "watermark")


def read_parameters(request: TgiRequest, *, streamed: bool) -> TgiParameters:
    """The parameters, TGI's own when omitted.

    Raises:
        InvalidInput: one of them is not offered here, or not together with another; names it.
    """
    given = request.parameters or TgiParameters(do_sample=True)
    for name in NOT_OFFERED:
        if (value := getattr(given, name)) not in (None, False):
            raise InvalidInput(f"parameters.{name}={value!r} is not offered by this server; leave it out")
    several = given.best_of is not None and given.best_of > 1
    if several and streamed:
        raise InvalidInput(f"parameters.best_of={given.best_of} cannot be streamed; send best_of=1, or do not stream")
    if several and not is_sampled(given):
        raise InvalidInput(f"parameters.best_of={given.best_of} needs sampling; send do_sample=true or a temperature")
    if given.decoder_input_details and streamed:
        raise InvalidInput("parameters.decoder_input_details cannot be streamed; leave it out, or do not stream")
    return given


def is_sampled(given: TgiParameters) -> bool:
    """Whether tokens are drawn. As in TGI, they are when `do_sample` or a warper asks for it, and greedy otherwise."""
    filters = (given.top_k, given.top_p, given.typical_p)
    return given.do_sample or given.temperature not in (None, 1.0) or any(value is not None for value in filters)


def sampling_of(given: TgiParameters) -> SamplingParams:
    """TGI's parameters as ours.

    Raises:
        InvalidInput: a value is over what our sampling takes.
    """
    temperature = 1.0 if given.temperature is None else given.temperature
    try:
        return SamplingParams(
            max_new_tokens=given.max_new_tokens or DEFAULT_NEW_TOKENS,
            temperature=temperature if is_sampled(given) else 0.0,
            top_p=1.0 if given.top_p is None else given.top_p,
            top_k=given.top_k or 0,
            typical_p=1.0 if given.typical_p is None else given.typical_p,
            frequency_penalty=given.frequency_penalty or 0.0,
            repetition_penalty=1.0 if given.repetition_penalty is None else given.repetition_penalty,
            no_repeat_ngram_size=given.no_repeat_ngram_size or 0,
            stop=given.stop,
            seed=given.seed,
            n=given.best_of or 1,
        )
    except ValidationError as error:
        raise InvalidInput("parameters." + describe_validation(list(error.errors()))) from error  # type: ignore[arg-type]


def extras_of(given: TgiParameters) -> Extras:
    """What the engine has to report besides tokens."""
    return Extras(top_logprobs=given.top_n_tokens or 0, prompt_logprobs=given.decoder_input_details)


def answer(base: TextModel, request: TgiRequest, given: TgiParameters, done: EngineRequest) -> TgiResponse:
    """TGI's GenerateResponse. Of several samples the one with the highest mean log-probability is the answer."""
    rows = sorted(done.outcome.result().rows, key=mean_logprob, reverse=True)
    texts = [_full_text(base, request, given, row) for row in rows]
    details = None
    if given.details or given.decoder_input_details:
        seed = done.seed if is_sampled(given) else None
        told = [_sequence(base.tokenizer, row, seed) for row in rows]
        others = [
            TgiBestOfSequence(generated_text=text, **dict(sequence))
            for text, sequence in zip(texts[1:], told[1:], strict=True)
        ]
        details = TgiDetails(**dict(told[0]), best_of_sequences=others or None)
    return TgiResponse(generated_text=texts[0], details=details)


def mean_logprob(row: Row) -> float:
    """Mean log-probability of a response's tokens, under the distribution sampled from."""
    return sum(row.behavior_logprobs) / len(row.behavior_logprobs)


def timing_headers(request: TgiRequest, outcome: Outcome) -> dict[str, str]:
    """TGI's headers: x-compute-time in seconds, the others in milliseconds."""
    total = outcome.queue_s + outcome.inference_s
    tokens = max(len(row.token_ids) for row in outcome.rows)
    return {
        "x-compute-characters": str(len(request.inputs)),
        "x-compute-time": f"{total:.6f}",
        "x-total-time": str(round(total * 1e3)),
        "x-queue-time": str(round(outcome.queue_s * 1e3)),
        "x-inference-time": str(round(outcome.inference_s * 1e3)),
        "x-time-per-token": str(round(outcome.inference_s * 1e3 / tokens)),
        "x-prompt-tokens": str(len(outcome.rows[0].prompt_ids)),
        "x-generated-tokens": str(tokens),
    }


class TgiFeed:
    """The events of a stream: one a token. The last is held until the response is complete, which it tells."""

    def __init__(self, base: TextModel, request: TgiRequest, given: TgiParameters, running: EngineRequest) -> None:
        """Args: base, of the tokenizer; request and given, what was asked; running, with one row."""
        self._base, self._request, self._given, self._running = base, request, given, running
        self._row = running.rows[0]
        self._text = TextStream(base.tokenizer, self._row.sampling.stop)
        self._read = 0
        self._held: list[TgiStreamResponse] = []

    def news(self) -> list[TgiStreamResponse]:
        """See Feed."""
        while self._read < len(self._row.token_ids):
            self._held += [self._event(piece) for piece in self._text.add(self._row.token_ids[self._read])]
            self._read += 1
        told, self._held = self._held[:-1], self._held[-1:]
        return told

    def rest(self) -> list[TgiStreamResponse]:
        """See Feed."""
        events = self._held + [self._event(piece) for piece in self._text.finish()]
        text = _full_text(self._base, self._request, self._given, self._row)
        details = TgiStreamDetails(
            finish_reason=self._row.ended_by,
            generated_tokens=len(self._row.token_ids),
            seed=self._running.seed if is_sampled(self._given) else None,
            input_length=len(self._row.prompt_ids),
        )
        last = {"generated_text": text, "details": details if self._given.details else None}
        return [*events[:-1], events[-1].model_copy(update=last)]

    def _event(self, piece: Piece) -> TgiStreamResponse:
        row, at = self._row, piece.index
        token = _token(row, piece)
        top = _top_tokens(self._base.tokenizer, row.top_logprobs[at]) if row.top_logprobs else []
        return TgiStreamResponse(index=at + 1, token=token, top_tokens=top)


def _full_text(base: TextModel, request: TgiRequest, given: TgiParameters, row: Row) -> str:
    text = response_text(base.tokenizer, row.token_ids, row.sampling.stop)
    return request.inputs + text if given.return_full_text else text


def _sequence(tokenizer: PreTrainedTokenizerBase, row: Row, seed: int | None) -> TgiSequence:
    pieces = pieces_of(tokenizer, row.token_ids, row.sampling.stop)
    return TgiSequence(
        finish_reason=row.ended_by,
        generated_tokens=len(row.token_ids),
        seed=seed,
        prefill=_prefill(tokenizer, row),
        tokens=[_token(row, piece) for piece in pieces],
        top_tokens=[_top_tokens(tokenizer, top) for top in row.top_logprobs],
    )


def _token(row: Row, piece: Piece) -> TgiToken:
    at = piece.index
    return TgiToken(id=row.token_ids[at], text=piece.text, logprob=row.behavior_logprobs[at], special=piece.special)


def _prefill(tokenizer: PreTrainedTokenizerBase, row: Row) -> list[TgiPrefillToken]:
    if row.prompt_logprobs is None:
        return []
    pieces = pieces_of(tokenizer, row.prompt_ids, [])
    logprobs = [None, *row.prompt_logprobs]
    return [
        TgiPrefillToken(id=token, text=piece.text, logprob=logprob)
        for token, piece, logprob in zip(row.prompt_ids, pieces, logprobs, strict=True)
    ]


def _top_tokens(tokenizer: PreTrainedTokenizerBase, top: list[tuple[int, float]]) -> list[TgiToken]:
    special = frozenset(tokenizer.all_special_ids)
    return [
        TgiToken(id=token, text=str(tokenizer.decode([token])), logprob=logprob, special=token in special)
        for token, logprob in top
        if logprob > -float("inf")
    ]
