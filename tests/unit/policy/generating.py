"""Rows from plain arguments, generated without the engine's thread, and what the model was asked to compute."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from services.policy.engine.batch import Batch
from services.policy.engine.forward import Forward, build_forward
from services.policy.engine.linears import Places
from services.policy.engine.prefill import Prefill
from services.policy.engine.requests import Limits, build_request
from services.policy.engine.rows import Extras, Row

PROMPTS = [[5, 9, 77, 130, 9], [200], [33, 34, 35, 36, 37, 38, 39, 40, 33, 34, 35], [5, 9, 12]]

REPORTED = Extras(model_logprobs=True)


@dataclass(frozen=True)
class Served:
    """A model as the engine serves it."""

    base: LanguageModel
    forward: Forward
    places: Places


def serve(base: LanguageModel, *, packed: bool = True) -> Served:
    return Served(base, *build_forward(base, packed=packed))


def make_rows(base: LanguageModel, prompts: list[list[int]], extras: Extras = REPORTED, **sampling: Any) -> list[Row]:
    settings = SamplingParams(**{"max_new_tokens": 16, "temperature": 1.0, "seed": 7, **sampling})
    return build_request(base, prompts, settings, None, Limits(), extras).rows


def prefilled(served: Served, rows: list[Row], tokens: int = 4096) -> Prefill:
    prefill = Prefill(served.forward, rows)
    while not prefill.done:
        prefill.advance(tokens)
    return prefill


def decode(served: Served, rows: list[Row]) -> None:
    """All rows begin together and go on to their ends."""
    batch = Batch(served.forward, served.base.eos_ids)
    batch.join(prefilled(served, rows))
    while batch.rows:
        batch.step()


def generate(served: Served, prompts: list[list[int]], extras: Extras = REPORTED, **sampling: Any) -> list[Row]:
    rows = make_rows(served.base, prompts, extras, **sampling)
    decode(served, rows)
    return rows


def by_transformers(base: LanguageModel, prompt: list[int], **settings: object) -> list[int]:
    """Greedy tokens by transformers, one prompt without padding, EOS included."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = base.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            pad_token_id=base.tokenizer.pad_token_id,
            **settings,
        )
    return out[0, len(prompt) :].tolist()


@contextmanager
def forward_shapes(forward: Forward) -> Iterator[list[tuple[int, int]]]:
    """The shapes of the token ids of every forward pass."""
    shapes: list[tuple[int, int]] = []
    plain = type(forward).last

    def noted(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append((ids.shape[0], ids.shape[1]))
        return plain(forward, ids, *rest)

    forward.last = noted  # type: ignore[method-assign]
    try:
        yield shapes
    finally:
        del forward.last


def abandoned() -> threading.Event:
    event = threading.Event()
    event.set()
    return event
