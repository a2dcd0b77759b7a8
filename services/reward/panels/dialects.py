"""What remote reward servers are asked and how they answer, a dialect each. No HTTP here.

Every dialect is asked for raw scores, as far as it knows the word: a score squeezed between 0 and 1 hardly tells two
good responses apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Prompt, prompt_messages
from rlhf.contracts.errors import ErrorType, ScoringFailed
from rlhf.contracts.panels import Dialect
from rlhf.contracts.reward import RewardSample, SampleFailure
from rlhf.lm.chat import render_prompt
from services.reward.panels.members import RawOutcome, RawScore


@dataclass(frozen=True)
class Speech:
    """How one server is spoken to.

    Attributes:
        dialect: which of them.
        label: of the output that is the score; None: the only one.
        tokenizer: writes prompts in its chat template; None: they are sent as they are.
    """

    dialect: Dialect
    label: int | str | None = None
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def path(self) -> str:
        """Where it is asked."""
        return _WORDS[self.dialect].path

    @property
    def one_by_one(self) -> bool:
        """Whether a request holds one sample only."""
        return _WORDS[self.dialect].one_by_one

    def write(self, samples: Sequence[RewardSample]) -> dict[str, Any]:
        """The body of a request."""
        return _WORDS[self.dialect].write(self, samples)

    def read(self, answer: bytes) -> list[RawOutcome]:
        """The outcomes of an answer, in its order.

        Raises:
            ValueError: the answer is none of this dialect.
            ScoringFailed: it has several outputs, or not the one that is the score.
        """
        return [outcome if isinstance(outcome, SampleFailure) else _score(*outcome) for outcome in self._found(answer)]

    def prompt(self, prompt: Prompt) -> str:
        """A prompt as one text: in the chat template, or the turns' words, a line each."""
        if self.tokenizer is not None:
            return render_prompt(self.tokenizer, prompt)
        return "\n".join(message.content for message in prompt_messages(prompt))

    def _found(self, answer: bytes) -> list[_Found]:
        return _WORDS[self.dialect].read(self, answer)


_Found = tuple[float | None, bool] | SampleFailure


def _score(value: float | None, truncated: bool) -> RawOutcome:
    if value is None:
        return SampleFailure(error="it gave null, which is no score; look into that model", error_type="scoring")
    return RawScore(value, truncated)


class _NativeResult(BaseModel):
    reward: float | None = None
    truncated: bool = False
    error: str | None = None
    error_type: ErrorType = "scoring"


class _NativeAnswer(BaseModel):
    results: list[_NativeResult]


class _OpenRlhfAnswer(BaseModel):
    rewards: list[float | None]


class _VllmClass(BaseModel):
    index: int
    probs: list[float | None]


class _VllmClassified(BaseModel):
    data: list[_VllmClass]


class _VllmPair(BaseModel):
    index: int
    score: float | None


class _VllmScored(BaseModel):
    data: list[_VllmPair]


class _TeiClass(BaseModel):
    score: float | None
    label: str


_TeiAnswer = TypeAdapter(list[list[_TeiClass]])


def _write_native(speech: Speech, samples: Sequence[RewardSample]) -> dict[str, Any]:
    return {"samples": [sample.model_dump() for sample in samples]}


def _read_native(speech: Speech, answer: bytes) -> list[_Found]:
    return [
        (each.reward, each.truncated)
        if each.error is None
        else SampleFailure(error=each.error, error_type=each.error_type)
        for each in _NativeAnswer.model_validate_json(answer).results
    ]


def _write_openrlhf(speech: Speech, samples: Sequence[RewardSample]) -> dict[str, Any]:
    prompts = [speech.prompt(sample.prompt) for sample in samples]
    queries = [prompt + sample.response for prompt, sample in zip(prompts, samples, strict=True)]
    return {"query": queries, "prompts": prompts, "labels": [None] * len(samples)}


def _read_openrlhf(speech: Speech, answer: bytes) -> list[_Found]:
    return [(reward, False) for reward in _OpenRlhfAnswer.model_validate_json(answer).rewards]


def _write_classify(speech: Speech, samples: Sequence[RewardSample]) -> dict[str, Any]:
    (sample,) = samples
    turns = [message.model_dump() for message in prompt_messages(sample.prompt)]
    return {"messages": [*turns, {"role": "assistant", "content": sample.response}], "use_activation": False}


def _read_classified(speech: Speech, answer: bytes) -> list[_Found]:
    data = _VllmClassified.model_validate_json(answer).data
    return [
        (_choose(dict(enumerate(each.probs)), speech.label), False) for each in sorted(data, key=lambda one: one.index)
    ]


def _write_score(speech: Speech, samples: Sequence[RewardSample]) -> dict[str, Any]:
    prompts = [speech.prompt(sample.prompt) for sample in samples]
    return {"text_1": prompts, "text_2": [sample.response for sample in samples], "use_activation": False}


def _read_scored(speech: Speech, answer: bytes) -> list[_Found]:
    data = _VllmScored.model_validate_json(answer).data
    return [(each.score, False) for each in sorted(data, key=lambda one: one.index)]


def _write_predict(speech: Speech, samples: Sequence[RewardSample]) -> dict[str, Any]:
    pairs = [[speech.prompt(sample.prompt), sample.response] for sample in samples]
    # Cut by the server it would lose the end of the response.
    return {"inputs": pairs, "raw_scores": True, "truncate": False}


def _read_predicted(speech: Speech, answer: bytes) -> list[_Found]:
    return [
        (_choose({each.label: each.score for each in classes}, speech.label), False)
        for classes in _TeiAnswer.validate_json(answer)
    ]


def _choose(scores: Mapping[Any, float | None], label: int | str | None) -> float | None:
    known = ", ".join(map(str, scores))
    if label is None and len(scores) == 1:
        return next(iter(scores.values()))
    if label in scores:
        return scores[label]
    said = f"label={label!r} is none of them; give the member one" if scores else "which is no score"
    raise ScoringFailed(f"the server gave {len(scores)} outputs ({known}) and {said}")


@dataclass(frozen=True)
class _Words:
    path: str
    write: Callable[[Speech, Sequence[RewardSample]], dict[str, Any]]
    read: Callable[[Speech, bytes], list[_Found]]
    one_by_one: bool = False


_WORDS: dict[Dialect, _Words] = {
    "native": _Words("/reward", _write_native, _read_native),
    "openrlhf": _Words("/get_reward", _write_openrlhf, _read_openrlhf),
    # vLLM writes messages in its model's own chat template, and takes one conversation at a time.
    "vllm_classify": _Words("/classify", _write_classify, _read_classified, one_by_one=True),
    "vllm_score": _Words("/score", _write_score, _read_scored),
    "tei_predict": _Words("/predict", _write_predict, _read_predicted),
}
