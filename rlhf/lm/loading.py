"""Loads base models and tokenizers from a local folder or a Hub id: safetensors only, dropout off, no remote code."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

BUILDING = threading.Lock()
"""Held while transformers makes a model. It alters classes of its own meanwhile (how weights are tied, how they begin):
of two threads that make one at once, one would end with weights that were never loaded."""


@dataclass(frozen=True)
class TextModel:
    """What is known of a base model without its weights, which may be elsewhere.

    Attributes:
        name: what the user calls it: the folder's name or the Hub id.
        eos_ids: every token id that ends a response.
        max_positions: most tokens of prompt and response together.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    max_positions: int


@dataclass(frozen=True)
class LanguageModel(TextModel):
    """A base model with its tokenizer and its weights.

    Attributes:
        model: in evaluation mode (dropout off), gradients off.
    """

    model: PreTrainedModel


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer; one without a pad token pads with EOS (masks come from lengths, never from ids)."""
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source} has no EOS token; set one in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_language_model(source: str, *, device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Loads a causal language model.

    Args:
        source: a local folder or a Hub id.
        device: torch device.
        dtype: of the weights, by its name in torch.

    Raises:
        OSError: the source does not exist or holds no safetensors weights; the message says which.
    """
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(source)
    with BUILDING:
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
        )
    model.to(device).eval().requires_grad_(False)
    known = _text_model(source, tokenizer, model.config, model.generation_config)
    return LanguageModel(**vars(known), model=model)


def load_text_model(source: str) -> tuple[TextModel, str]:
    """Loads tokenizer and configuration of a model whose weights another server holds.

    Args:
        source: a local folder or a Hub id; no weights are needed there.

    Returns:
        The model, and the family of its architecture.

    Raises:
        OSError: the source does not exist or lacks a tokenizer or config.json; the message says which.
    """
    tokenizer = load_tokenizer(source)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:
        # Made from config.json, as transformers does where a model brings none.
        generation = GenerationConfig.from_model_config(config)
    return _text_model(source, tokenizer, config, generation), str(config.model_type)


def _text_model(
    source: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, generation: GenerationConfig | None
) -> TextModel:
    eos = None if generation is None else generation.eos_token_id
    listed = [eos] if isinstance(eos, int) else list(eos or [])
    return TextModel(
        name=Path(source).name if Path(source).exists() else source,
        tokenizer=tokenizer,
        eos_ids=tuple(dict.fromkeys([int(tokenizer.eos_token_id), *listed])),
        max_positions=int(getattr(config, "max_position_embeddings", 2048)),
    )
