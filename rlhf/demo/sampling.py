"""Responses sampled from a causal language model under several settings: the raw material of the preference pairs.

This is the one module of `rlhf.demo` that needs torch and transformers; only the script that builds the data imports
it. It is not the policy service's engine: it runs once, offline, in large batches.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from rlhf.demo.dataset import SYSTEM_PROMPT
from rlhf.demo.prompts import Prompt

SHORT_PROMPT = "Answer in one short sentence."
TERSE_PROMPT = "Answer with a few words only."
LONG_PROMPT = "You are a helpful assistant. Explain in detail."


@dataclass(frozen=True)
class Setting:
    """How some of the responses are sampled, and for which prompts.

    Attributes:
        name: Stored with each response.
        system: System prompt used for sampling; the pairs carry the task's one whatever was used here.
        temperature: Divides the logits.
        max_new_tokens: Responses that reach it are cut off.
        repetition_penalty: 1.0 is none.
        every: Prompt number i takes part when i % every == offset.
        offset: See `every`.
    """

    name: str
    system: str
    temperature: float
    max_new_tokens: int
    repetition_penalty: float = 1.0
    every: int = 1
    offset: int = 0


# `task` is the distribution that PPO's policy starts from, so it gets the most responses; the others surround it:
# shorter and complete, too short, longer, noisier, cut off early.
SETTINGS = (
    Setting("task-a", SYSTEM_PROMPT, 0.7, 40),
    Setting("short", SHORT_PROMPT, 0.7, 40),
    Setting("task-b", SYSTEM_PROMPT, 0.7, 40),
    Setting("short-cool", SHORT_PROMPT, 0.3, 40, every=2, offset=0),
    Setting("task-penalty", SYSTEM_PROMPT, 0.7, 40, repetition_penalty=1.15, every=2, offset=1),
    Setting("terse", TERSE_PROMPT, 0.7, 40, every=2, offset=0),
    Setting("task-64", SYSTEM_PROMPT, 0.7, 64, every=2, offset=1),
    Setting("task-hot", SYSTEM_PROMPT, 1.0, 40, every=3, offset=0),
    Setting("task-cool", SYSTEM_PROMPT, 0.3, 64, every=3, offset=1),
    Setting("task-16", SYSTEM_PROMPT, 0.7, 16, every=3, offset=2),
    Setting("long", LONG_PROMPT, 0.7, 64, every=4, offset=3),
)


@dataclass(frozen=True)
class Sample:
    """One sampled response, stripped of surrounding white space.

    Attributes:
        prompt_id: Which prompt it answers.
        setting: Name of the setting that it was sampled under.
        response: The text, without special tokens.
        ended: Whether the model produced its end-of-sequence token within the limit.
    """

    prompt_id: str
    setting: str
    response: str
    ended: bool


def sample_responses(
    model_dir: Path,
    prompts: Sequence[Prompt],
    *,
    seed: int,
    dtype: torch.dtype,
    batch_size: int,
    settings: Sequence[Setting] = SETTINGS,
) -> Iterator[list[Sample]]:
    """Sample every setting's responses, batch by batch.

    Each batch is seeded from `seed`, its setting and its number, so a batch does not depend on those before it.

    Args:
        model_dir: Directory with the model's weights, tokenizer and chat template.
        prompts: All prompts; a setting takes every n-th of them.
        seed: Seed of all draws.
        dtype: Dtype of the weights.
        batch_size: Prompts a batch.
        settings: What to sample under.

    Yields:
        The samples of one batch.
    """
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads, so any token would do
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).eval()
    for setting in settings:
        chosen = [prompt for i, prompt in enumerate(prompts) if i % setting.every == setting.offset]
        texts = {prompt.id: _chat(tokenizer, setting.system, prompt.prompt) for prompt in chosen}
        # Neighbours of similar length waste little on padding; the id breaks ties the same way each time.
        chosen.sort(key=lambda prompt: (len(tokenizer(texts[prompt.id])["input_ids"]), prompt.id))
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            torch.manual_seed(zlib.crc32(f"{seed}:{setting.name}:{start}".encode()))
            answers = _generate(model, tokenizer, [texts[prompt.id] for prompt in batch], setting)
            yield [Sample(p.id, setting.name, text, ended) for p, (text, ended) in zip(batch, answers, strict=True)]


def _chat(tokenizer: AutoTokenizer, system: str, user: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@torch.inference_mode()
def _generate(
    model: AutoModelForCausalLM, tokenizer: AutoTokenizer, texts: list[str], setting: Setting
) -> list[tuple[str, bool]]:
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    config = GenerationConfig(
        do_sample=True,
        temperature=setting.temperature,
        top_k=0,
        top_p=1.0,
        repetition_penalty=setting.repetition_penalty,
        max_new_tokens=setting.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    output = model.generate(**inputs, generation_config=config)
    answers = output[:, inputs["input_ids"].shape[1] :]
    ended = (answers == tokenizer.eos_token_id).any(dim=1).tolist()
    texts_out = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [(text.strip(), bool(end)) for text, end in zip(texts_out, ended, strict=True)]
