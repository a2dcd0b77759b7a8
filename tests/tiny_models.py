"""Tiny random models with a byte-level tokenizer, saved as ordinary Hugging Face folders. For tests' speed only."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoConfig, GPTNeoForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def save_tokenizer(folder: Path, *, chat_template: bool = True) -> PreTrainedTokenizerFast:
    """256 bytes and two special tokens: <|im_start|> = 256 (BOS), <|im_end|> = 257 (EOS). No pad token on purpose."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", model_max_length=512
    )
    if chat_template:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def save_tiny_llama(folder: Path, *, seed: int = 0, layers: int = 4) -> Path:
    """A 4-layer Llama with grouped-query attention, d=32, vocabulary 258, 512 positions."""
    torch.manual_seed(seed)
    tokenizer = save_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_tiny_gpt_neo(folder: Path, *, seed: int = 0) -> Path:
    """A 4-layer GPT-Neo with alternating global and local attention, learned positions, no chat template."""
    torch.manual_seed(seed)
    tokenizer = save_tokenizer(folder, chat_template=False)
    config = GPTNeoConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=16,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        resid_dropout=0.1,
        embed_dropout=0.1,
        attention_dropout=0.1,
        initializer_range=0.2,
    )
    GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder
