"""The demo's prompts: templates and slots expanded to distinct prompts, each with a type and a split.

Not a data set of answers: the prompts ask for something that one or two short sentences (or a short list) can satisfy,
and nothing here says what a good answer is. `rlhf.demo.rubric` does.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

Split = Literal["train", "heldout"]

HELDOUT_SHARE = 0.22
"""Share of each type's prompts that is kept for evaluation, rounded to a whole prompt."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of the demo, as stored in a line of `data/prompts.jsonl`."""

    id: str
    type: str
    prompt: str
    split: Split


def make_prompts() -> list[Prompt]:
    """Expand the templates and split every type into training and held-out prompts.

    The split is drawn by the hash of the prompt's text, so that a prompt added later leaves most of the others where
    they are, and it is stratified: each type gives the same share.

    Returns:
        All prompts, ordered by type and then as the slots are ordered.

    Raises:
        ValueError: Two slots give the same prompt.
    """
    text = resources.files("rlhf.demo").joinpath("data/prompt_slots.toml").read_text("utf-8")
    material: dict[str, list[dict[str, Any]]] = tomllib.loads(text)
    prompts: list[Prompt] = []
    seen: set[str] = set()
    for kind, entries in material.items():
        texts = [entry["template"].format(slot) for entry in entries for slot in entry["slots"].strip().splitlines()]
        for prompt in texts:
            if prompt.casefold() in seen:
                raise ValueError(f"prompt {prompt!r} of type {kind!r} appears twice in prompt_slots.toml; remove one")
            seen.add(prompt.casefold())
        heldout = set(sorted(texts, key=_text_hash)[: round(HELDOUT_SHARE * len(texts))])
        name = kind.replace(" ", "-")
        prompts += [
            Prompt(f"{name}-{number:03d}", kind, prompt, "heldout" if prompt in heldout else "train")
            for number, prompt in enumerate(texts, start=1)
        ]
    return prompts


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
