"""TGI's body of `/generate` in our terms, and our outcome in TGI's. Not its streaming, which is not offered yet."""

from __future__ import annotations

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.policy import SamplingParams, TgiDetails, TgiParameters, TgiRequest, TgiResponse, TgiToken
from rlhf.lm.loading import LanguageModel
from rlhf.serving.service import describe_validation
from services.policy.engine.requests import EngineRequest, Outcome
from services.policy.engine.rows import Row
from services.policy.engine.stops import cut_at_stop, decode_text, token_texts

DEFAULT_NEW_TOKENS = 100
NOT_OFFERED = ("decoder_input_details", "grammar", "top_n_tokens", "watermark")


def read_parameters(request: TgiRequest) -> TgiParameters:
    """The parameters, TGI's own when omitted.

    Raises:
        InvalidInput: one of them is not offered here; names it.
    """
    if request.stream:
        raise InvalidInput("stream=true: streaming is not offered yet; send stream=false, or leave it out")
    given = request.parameters or TgiParameters(do_sample=True)
    for name in NOT_OFFERED:
        if (value := getattr(given, name)) not in (None, False, 0):
            raise InvalidInput(f"parameters.{name}={value!r} is not offered by this server; leave it out")
    if given.best_of is not None and given.best_of > 1:
        raise InvalidInput(f"parameters.best_of={given.best_of} is not offered by this server; leave it out, or send 1")
    return given


def sampling_of(given: TgiParameters) -> SamplingParams:
    """TGI's parameters as ours. As in TGI, a response is greedy unless `do_sample` or a warper asks for sampling.

    Raises:
        InvalidInput: a value is over what our sampling takes.
    """
    filters = (given.top_k, given.top_p, given.typical_p)
    warped = given.temperature not in (None, 1.0) or any(value is not None for value in filters)
    temperature = 1.0 if given.temperature is None else given.temperature
    try:
        return SamplingParams(
            max_new_tokens=given.max_new_tokens or DEFAULT_NEW_TOKENS,
            temperature=temperature if given.do_sample or warped else 0.0,
            top_p=1.0 if given.top_p is None else given.top_p,
            top_k=given.top_k or 0,
            typical_p=1.0 if given.typical_p is None else given.typical_p,
            frequency_penalty=given.frequency_penalty or 0.0,
            repetition_penalty=1.0 if given.repetition_penalty is None else given.repetition_penalty,
            no_repeat_ngram_size=given.no_repeat_ngram_size or 0,
            stop=given.stop,
            seed=given.seed,
        )
    except ValidationError as error:
        raise InvalidInput("parameters." + describe_validation(list(error.errors()))) from error  # type: ignore[arg-type]


def encode_inputs(base: LanguageModel, inputs: str, truncate: int | None) -> list[int]:
    """Token ids of the raw text as TGI makes them: no chat template, the tokenizer's own special tokens.

    Args:
        base: the model.
        inputs: text.
        truncate: keep only the last so many tokens.

    Raises:
        InvalidInput: nothing is left, or truncate is over the model's length.
    """
    if not inputs:
        raise InvalidInput("inputs is empty; give at least one character")
    longest = base.max_positions - 1
    if truncate is not None and not 0 < truncate <= longest:
        raise InvalidInput(f"parameters.truncate={truncate} is outside 1 to {longest}, this model's longest prompt")
    ids = list(base.tokenizer(inputs, verbose=False)["input_ids"])
    return ids if truncate is None else ids[-truncate:]


def answer(base: LanguageModel, request: TgiRequest, given: TgiParameters, done: EngineRequest) -> TgiResponse:
    """TGI's GenerateResponse."""
    row = done.outcome.result().rows[0]
    text = cut_at_stop(decode_text(base.tokenizer, row.token_ids), row.sampling.stop)
    sampled = row.sampling.temperature > 0
    return TgiResponse(
        generated_text=request.inputs + text if given.return_full_text else text,
        details=_details(base.tokenizer, row, done.seed if sampled else None) if given.details else None,
    )


def timing_headers(request: TgiRequest, outcome: Outcome) -> dict[str, str]:
    """TGI's headers: x-compute-time in seconds, the others in milliseconds."""
    row = outcome.rows[0]
    total = outcome.queue_s + outcome.inference_s
    return {
        "x-compute-characters": str(len(request.inputs)),
        "x-compute-time": f"{total:.6f}",
        "x-total-time": str(round(total * 1e3)),
        "x-queue-time": str(round(outcome.queue_s * 1e3)),
        "x-inference-time": str(round(outcome.inference_s * 1e3)),
        "x-time-per-token": str(round(outcome.inference_s * 1e3 / max(1, len(row.token_ids)))),
        "x-prompt-tokens": str(len(row.prompt_ids)),
        "x-generated-tokens": str(len(row.token_ids)),
    }


def _details(tokenizer: PreTrainedTokenizerBase, row: Row, seed: int | None) -> TgiDetails:
    special = frozenset(tokenizer.all_special_ids)
    texts = token_texts(tokenizer, row.token_ids)
    return TgiDetails(
        finish_reason=row.ended_by,
        generated_tokens=len(row.token_ids),
        seed=seed,
        prefill=[],
        tokens=[
            TgiToken(id=token, text=text, logprob=logprob, special=token in special)
            for token, text, logprob in zip(row.token_ids, texts, row.behavior_logprobs, strict=True)
        ],
    )
