"""Rows from plain arguments, and what the model was asked to compute for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import LanguageModel
from services.policy.engine.decoding import decode
from services.policy.engine.requests import Limits, build_request
from services.policy.engine.rows import Extras, Row

PROMPTS = [[5, 9, 77, 130, 9], [200], [33, 34, 35, 36, 37, 38, 39, 40, 33, 34, 35], [5, 9, 12]]


def make_rows(base: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[Row]:
    settings = SamplingParams(**{"max_new_tokens": 16, "temperature": 1.0, "seed": 7, **sampling})
    return build_request(base, prompts, settings, None, Limits(), Extras()).rows


def generate(base: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[Row]:
    rows = make_rows(base, prompts, **sampling)
    decode(base, rows)
    return rows


@contextmanager
def forward_shapes(model: nn.Module) -> Iterator[list[tuple[int, int]]]:
    """The shapes of `input_ids` of every forward pass."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def abandoned() -> threading.Event:
    event = threading.Event()
    event.set()
    return event
