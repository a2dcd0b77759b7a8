"""TGI's dialect: `/generate` with details, one request a row.

TGI takes text. So a prompt is sent as the text that gives its token ids, and `/tokenize` tells once a prompt that the
server reads it as we do. (`decoder_input_details` would tell it too, where the server was started with
`--enable-prefill-logprobs`, and it computes every prompt anew.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerBase

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, GenerationFailed, InvalidInput, NotFound
from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import TextModel
from services.policy.backends.base import UNKNOWN, ModelFacts
from services.policy.backends.remote import RemoteBackend, name_at_server, refuse_replaced
from services.policy.backends.server import Server
from services.policy.backends.translation import Answered, refuse
from services.policy.engine.requests import EngineRequest, Limits
from services.policy.engine.rows import Extras, Row

NAME = "tgi"
PROMPTS_REMEMBERED = 4096
REFUSED = {
    "min_new_tokens": "TGI has no such parameter",
    "min_p": "TGI has no such parameter",
    "presence_penalty": "TGI has no such parameter",
    "no_repeat_ngram_size": "TGI has no such parameter",
    "frequency_penalty": "TGI divides the counts by the length of prompt and response, so it would mean something else",
}
ALL_ADAPTERS = 2**20
"""TGI holds those it was started with, however many."""


class Info(BaseModel):
    """Of `GET /info`."""

    model_id: str
    max_total_tokens: int
    model_dtype: str | None = None
    model_device_type: str | None = None


class Token(BaseModel):
    """One token."""

    id: int
    logprob: float | None


class Details(BaseModel):
    """Of an answer."""

    finish_reason: Literal["length", "eos_token", "stop_sequence"]
    tokens: list[Token]
    prefill: list[Token] = []
    top_tokens: list[list[Token]] | None = None


class Answer(BaseModel):
    """Of `POST /generate`."""

    details: Details


class Encoded(BaseModel):
    """Of `POST /tokenize`."""

    id: int


ENCODED = TypeAdapter(list[Encoded])


async def ask_facts(server: Server, model_type: str) -> tuple[ModelFacts, int]:
    """What the server tells of its model, and the most tokens of prompt and response. Raises what `fetch` raises."""
    info = await server.fetch(Info, "GET", "/info")
    facts = ModelFacts(model_type, info.model_dtype or UNKNOWN, info.model_device_type or UNKNOWN)
    return facts, info.max_total_tokens


class TgiBackend(RemoteBackend):
    """See RemoteBackend."""

    def __init__(
        self,
        base: TextModel,
        facts: ModelFacts,
        limits: Limits,
        server: Server,
        *,
        store: ArtifactStore,
        adapter_name: str,
    ) -> None:
        """As RemoteBackend.

        Args:
            base: as RemoteBackend.
            facts: as RemoteBackend.
            limits: as RemoteBackend.
            server: as RemoteBackend.
            store: of published adapters; those that the server was started with need not be there.
            adapter_name: what the server calls an adapter, with `{job}` and `{version}`.
        """
        super().__init__(base, facts, limits, server, most_adapters=ALL_ADAPTERS)
        self._store, self._adapter_name = store, adapter_name
        self._text = lru_cache(PROMPTS_REMEMBERED)(lambda ids: text_of(base.tokenizer, ids))
        self._same: dict[str, None] = {}

    def check(self, prompts: list[list[int]], sampling: SamplingParams, extras: Extras) -> None:
        """See RemoteBackend."""
        refuse(NAME, sampling, REFUSED)
        for index, ids in enumerate(prompts):
            if self._text(tuple(ids)) is None:
                raise InvalidInput(
                    f"prompt {index} cannot be sent by the backend {NAME}, which takes text: no text has just these "
                    "token ids; send text, or use the backend vllm or embedded"
                )

    async def admit(self, request: EngineRequest) -> None:
        """Raises GenerationFailed when the server reads a prompt as other tokens than we do."""
        first = {row.prompt_index: row for row in request.rows}
        await asyncio.gather(*(self._check_prompt(row) for row in first.values()))

    async def complete(self, row: Row, seed: int, adapter: str | None) -> Answered:
        """See RemoteBackend."""
        name = None if adapter is None else name_at_server(self._adapter_name, adapter)
        parameters = parameters_of(row.sampling, row.extras, seed, name)
        body = {"inputs": self._text(tuple(row.prompt_ids)), "parameters": parameters}
        details = (await self._server.fetch(Answer, "POST", "/generate", body)).details
        return Answered(
            token_ids=[token.id for token in details.tokens],
            logprobs=[token.logprob for token in details.tokens],
            finish_reason=details.finish_reason,
            top_logprobs=[_ranked(top, row.extras.top_logprobs) for top in details.top_tokens or []],
            prompt_logprobs=_prompt_logprobs(details.prefill) if row.extras.prompt_logprobs else None,
        )

    async def load_adapter(self, ref: str) -> None:
        """TGI has those it was started with, and answers others as the base model: which the probe after this tells.

        Raises:
            Conflict: it holds whole weights.
        """
        try:
            folder = await asyncio.to_thread(self._store.resolve, "adapters", ref)
        except (NotFound, Conflict):
            return  # what the store holds of it is no matter for a server that does not read it
        refuse_replaced(NAME, ref, folder)

    async def unload_adapter(self, ref: str) -> None:
        """Nothing was loaded."""

    async def _check_prompt(self, row: Row) -> None:
        text = self._text(tuple(row.prompt_ids))
        if text is None or text in self._same:
            return
        answer = await self._server.send("POST", "/tokenize", {"inputs": text})
        try:
            seen = [token.id for token in ENCODED.validate_json(answer.content)]
        except ValidationError as error:
            raise GenerationFailed(f"{NAME} answered /tokenize with something else than tokens: {error}") from error
        if seen != row.prompt_ids:
            at = next((i for i, (a, b) in enumerate(zip(seen, row.prompt_ids, strict=False)) if a != b), None)
            raise GenerationFailed(
                f"{NAME} at {self._server.address.url} reads prompt {row.prompt_index} as {len(seen)} tokens, and we "
                f"as {len(row.prompt_ids)}; they differ at {'the end' if at is None else f'token {at}'}: its tokenizer "
                "is not the one of RLHF_MODEL"
            )
        while len(self._same) >= PROMPTS_REMEMBERED:
            del self._same[next(iter(self._same))]
        self._same[text] = None


def parameters_of(sampling: SamplingParams, extras: Extras, seed: int, adapter: str | None) -> dict[str, Any]:
    """Our sampling in TGI's words, where whatever is off has to be left out.

    Args:
        sampling: checked before.
        extras: what to report.
        seed: of this sample.
        adapter: the server's name of it.
    """
    drawn = sampling.temperature > 0
    optional = {
        "temperature": sampling.temperature if drawn and sampling.temperature != 1 else None,
        "top_k": sampling.top_k or None,
        "top_p": sampling.top_p if sampling.top_p < 1 else None,
        "typical_p": sampling.typical_p if sampling.typical_p < 1 else None,
        "repetition_penalty": sampling.repetition_penalty if sampling.repetition_penalty != 1 else None,
        "top_n_tokens": extras.top_logprobs or None,
        "adapter_id": adapter,
    }
    return {
        "details": True,
        "decoder_input_details": extras.prompt_logprobs,
        "do_sample": drawn,
        "max_new_tokens": sampling.max_new_tokens,
        "seed": seed,
        "stop": sampling.stop,
        **{name: value for name, value in optional.items() if value is not None},
    }


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str | None:
    """The text that the tokenizer reads as these ids, or None when there is none."""
    # Special tokens that the tokenizer adds itself must not stand in the text too.
    added = len(tokenizer("")["input_ids"])
    for start in {0: None, added: None}:
        text = str(tokenizer.decode(list(ids[start:]), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if text and list(tokenizer(text, verbose=False)["input_ids"]) == list(ids):
            return text
    return None


def _ranked(top: list[Token], count: int) -> list[tuple[int, float]]:
    told = [(token.id, token.logprob) for token in top if token.logprob is not None]
    return sorted(told, key=lambda pair: -pair[1])[:count]


def _prompt_logprobs(prefill: list[Token]) -> list[float]:
    """Of every token but the first, which has none."""
    return [token.logprob for token in prefill[1:] if token.logprob is not None]
