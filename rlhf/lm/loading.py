"""Loads base models and tokenizers from a local folder or a Hub id: safetensors only, dropout off, no remote code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LanguageModel:
    """A base model with its tokenizer.

    Attributes:
        name: what the user calls it: the folder's name or the Hub id.
        model: in evaluation mode (dropout off), gradients off.
        eos_ids: every token id that ends a response.
        max_positions: most tokens of prompt and response together.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    max_positions: int


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer; one without a pad token pads with EOS (masks come from lengths, never from ids)."""
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {source} has no EOS token; set one in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_language_model(source: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Loads a causal language model.

    Args:
        source: a local folder or a Hub id.
        device: torch device.
        dtype: of the weights.

    Raises:
        OSError: the source does not exist or holds no safetensors weights; the message says which.
    """
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True, trust_remote_code=False)
    model.to(device).eval().requires_grad_(False)
    eos = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = [eos] if isinstance(eos, int) else list(eos or [])
    name = Path(source).name if Path(source).exists() else source
    return LanguageModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        eos_ids=tuple(dict.fromkeys([int(tokenizer.eos_token_id), *listed])),
        max_positions=int(getattr(model.config, "max_position_embeddings", 2048)),
    )
