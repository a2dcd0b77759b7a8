"""vLLM's dialect: `/v1/completions` with token ids, one request a row, and `/v1/load_lora_adapter`.

The server has to be started with `--logprobs-mode processed_logprobs`, which is looked at before anything is served;
for adapters, with `--enable-lora`, `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True` and `--max-lora-rank` of theirs.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import GenerationFailed, InvalidInput, NotFound, Unavailable
from rlhf.contracts.policy import FinishReason, SamplingParams
from rlhf.lm.loading import TextModel
from services.policy.backends.base import ModelFacts
from services.policy.backends.remote import PROBE_TEXT, RemoteBackend, name_at_server, refuse_replaced
from services.policy.backends.server import Server
from services.policy.backends.translation import Answered, refuse
from services.policy.engine.requests import EngineRequest, Limits
from services.policy.engine.rows import Extras, Row

log = logging.getLogger(__name__)
NAME = "vllm"
NO_PARAMETER = "vLLM has no such parameter and would pass over it"
RESPONSES_ONLY = "vLLM counts the tokens of the response alone, and not the prompt's"
REFUSED = {
    "typical_p": NO_PARAMETER,
    "no_repeat_ngram_size": NO_PARAMETER,
    "frequency_penalty": RESPONSES_ONLY,
    "presence_penalty": RESPONSES_ONLY,
}
SMALLEST_TEMPERATURE = 0.01
"""vLLM takes it for smaller ones."""
IMPOSSIBLE = -9999.0
"""vLLM's log-probability of tokens that filters ban."""
CERTAIN = -1e-3
"""A single token that a filter leaves has the log-probability 0, but for rounding."""


class Card(BaseModel):
    """A model or an adapter."""

    id: str
    parent: str | None = None
    max_model_len: int | None = None


class Models(BaseModel):
    """Of `GET /v1/models`."""

    data: list[Card]


class Logprobs(BaseModel):
    """Of a choice. Tokens are named `token_id:N`."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class PromptToken(BaseModel):
    """A token of the prompt."""

    logprob: float


class Choice(BaseModel):
    """One response."""

    finish_reason: str | None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    prompt_logprobs: list[dict[int, PromptToken] | None] | None = None


class Answer(BaseModel):
    """Of `POST /v1/completions`."""

    choices: list[Choice]


async def ask_facts(server: Server, base: TextModel, model_type: str) -> tuple[ModelFacts, int, str]:
    """What the server tells of its model, the most tokens of prompt and response, and the model's name there.

    Raises:
        ValueError: it was not started as it has to be; says how.
        ServiceError: as `Server.fetch`.
    """
    cards = [card for card in (await server.fetch(Models, "GET", "/v1/models")).data if card.parent is None]
    if not cards:
        raise ValueError(f"{NAME} at {server.address.url} serves no base model")
    ids = list(base.tokenizer(PROBE_TEXT)["input_ids"])
    body = body_of(cards[0].id, ids, SamplingParams(max_new_tokens=1, top_k=1), Extras(), seed=0)
    choice = (await server.fetch(Answer, "POST", "/v1/completions", body)).choices[0]
    logprob = answered_of(choice, Extras()).logprobs[0]
    if logprob is None or logprob < CERTAIN:
        raise ValueError(
            f"{NAME} at {server.address.url} told the log-probability {logprob} of the only token that top_k=1 leaves, "
            "which has 0: start it with --logprobs-mode processed_logprobs"
        )
    return ModelFacts(model_type), cards[0].max_model_len or base.max_positions, cards[0].id


class VllmBackend(RemoteBackend):
    """See RemoteBackend."""

    def __init__(
        self,
        base: TextModel,
        facts: ModelFacts,
        limits: Limits,
        server: Server,
        *,
        model: str,
        store: ArtifactStore,
        store_there: Path | None,
        adapter_name: str,
        most_adapters: int,
    ) -> None:
        """As RemoteBackend.

        Args:
            base: as RemoteBackend.
            facts: as RemoteBackend.
            limits: as RemoteBackend.
            server: as RemoteBackend.
            model: the base model's name at the server.
            store: of published adapters.
            store_there: its root as the server sees it; None: the same path.
            adapter_name: what the server calls an adapter, with `{job}` and `{version}`.
            most_adapters: loaded there at once.
        """
        super().__init__(base, facts, limits, server, most_adapters=most_adapters)
        self._model, self._store, self._store_there = model, store, store_there
        self._adapter_name = adapter_name

    def check(self, prompts: list[list[int]], sampling: SamplingParams, extras: Extras) -> None:
        """See RemoteBackend."""
        refuse(NAME, sampling, REFUSED)
        if 0 < sampling.temperature < SMALLEST_TEMPERATURE:
            raise InvalidInput(
                f"temperature={sampling.temperature} cannot be done by the backend {NAME}, which takes "
                f"{SMALLEST_TEMPERATURE} for it; send 0 for greedy decoding, or at least {SMALLEST_TEMPERATURE}"
            )

    async def complete(self, row: Row, seed: int, adapter: str | None) -> Answered:
        """See RemoteBackend."""
        model = self._model if adapter is None else name_at_server(self._adapter_name, adapter)
        body = body_of(model, row.prompt_ids, row.sampling, row.extras, seed)
        try:
            answer = await self._server.fetch(Answer, "POST", "/v1/completions", body)
        except NotFound as error:
            if adapter is None:
                raise
            self._adapters.forget(adapter)
            raise Unavailable(
                f"{NAME} at {self._server.address.url} has adapter {adapter} no longer, as after a restart; send the "
                "request again, which loads it",
                retry_after=1,
            ) from error
        if not answer.choices:
            raise GenerationFailed(f"{NAME} at {self._server.address.url} answered no choice")
        return answered_of(answer.choices[0], row.extras)

    async def admit(self, request: EngineRequest) -> None:
        """Token ids are sent as they are."""

    async def load_adapter(self, ref: str) -> None:
        """Has the server load the folder of the artifact store, under a name that no other version has or had.

        Raises:
            NotFound: the store has no such adapter, or the server does not find its folder.
            Conflict: the adapter is corrupt, or holds whole weights.
        """
        folder = await asyncio.to_thread(self._store.resolve, "adapters", ref)
        refuse_replaced(NAME, ref, folder)
        there = folder.absolute() if self._store_there is None else self._store_there / self._inside(folder)
        name = name_at_server(self._adapter_name, ref)
        try:
            await self._server.send("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(there)})
        except NotFound as error:
            raise NotFound(
                f"{error.message}. Asked for {there}: it has to be there for the server too (RLHF_BACKEND_STORE), "
                "which has to run with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            ) from error
        except InvalidInput as error:
            # Another replica of ours, or a request whose client left meanwhile; a version never changes.
            if "already been loaded" not in error.message:
                raise

    async def unload_adapter(self, ref: str) -> None:
        """See RemoteBackend."""
        try:
            name = name_at_server(self._adapter_name, ref)
            await self._server.send("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except NotFound:
            log.info("the server had unloaded an adapter already", extra={"adapter": ref})

    async def is_untrained(self, ref: str) -> bool:
        """Whether all its factors B are 0, as before the first update."""
        folder = await asyncio.to_thread(self._store.resolve, "adapters", ref)
        tensors = await asyncio.to_thread(load_file, folder / "adapter_model.safetensors")
        return not any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_B." in name)

    def _inside(self, folder: Path) -> Path:
        return folder.relative_to(self._store.root)


def body_of(model: str, prompt: list[int], sampling: SamplingParams, extras: Extras, seed: int) -> dict[str, Any]:
    """Our sampling in vLLM's words. Everything is said, since a model's own generation_config fills in the rest.

    Args:
        model: name of the model or adapter at the server.
        prompt: token ids.
        sampling: checked before.
        extras: what to report.
        seed: of this sample.
    """
    return {
        "model": model,
        "prompt": prompt,
        "n": 1,
        "seed": seed,
        "max_tokens": sampling.max_new_tokens,
        "min_tokens": sampling.min_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "stop": sampling.stop,
        "logprobs": extras.top_logprobs,
        "prompt_logprobs": 0 if extras.prompt_logprobs else None,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def answered_of(choice: Choice, extras: Extras) -> Answered:
    """A choice in our words. Raises GenerationFailed when it lacks what was asked for, or was not finished."""
    if choice.token_ids is None or choice.logprobs is None:
        raise GenerationFailed(
            "vLLM answered without token ids or log-probabilities; version 0.10.2 is the first to do"
        )
    return Answered(
        token_ids=choice.token_ids,
        logprobs=choice.logprobs.token_logprobs,
        finish_reason=_finish(choice),
        top_logprobs=[_ranked(top or {}, extras.top_logprobs) for top in choice.logprobs.top_logprobs or []],
        prompt_logprobs=_prompt_logprobs(choice) if extras.prompt_logprobs else None,
    )


def _finish(choice: Choice) -> FinishReason:
    if choice.finish_reason == "length":
        return "length"
    if choice.finish_reason != "stop":
        raise GenerationFailed(f"vLLM ended a response by {choice.finish_reason!r} before it was complete")
    return "stop_sequence" if isinstance(choice.stop_reason, str) else "eos_token"


def _ranked(top: dict[str, float], count: int) -> list[tuple[int, float]]:
    """The likeliest so many; vLLM tells the sampled token besides, and banned ones."""
    told = [(int(name.removeprefix("token_id:")), logprob) for name, logprob in top.items() if logprob > IMPOSSIBLE]
    return sorted(told, key=lambda pair: -pair[1])[:count]


def _prompt_logprobs(choice: Choice) -> list[float]:
    """Of every token but the first, which has none."""
    return [next(iter(told.values())).logprob for told in (choice.prompt_logprobs or [])[1:] if told]
