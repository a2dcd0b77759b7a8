"""Tiny random models with a byte-level tokenizer, saved as ordinary Hugging Face folders. For tests' speed only."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

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


def save_tiny_llama_classifier(folder: Path, *, seed: int = 0, labels: int = 1, pad: int | None = None) -> Path:
    """A 2-layer Llama that classifies, with the chat template. Args: pad, of its configuration alone."""
    torch.manual_seed(seed)
    tokenizer = save_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        num_labels=labels,
        initializer_range=0.2,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_tiny_bert_classifier(folder: Path, *, seed: int = 0, labels: int = 1) -> Path:
    """A 2-layer BERT that classifies pairs of texts: 4 marks, then words of one letter; 64 positions, no template."""
    torch.manual_seed(seed)
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.printable[:62], "."])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **marks
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        num_labels=labels,
        initializer_range=0.2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_tiny_roberta_classifier(folder: Path, *, seed: int = 0) -> Path:
    """A 1-layer RoBERTa whose 34 learned positions hold 32 tokens, which its tokenizer does not say."""
    torch.manual_seed(seed)
    save_tokenizer(folder, chat_template=False)
    config = RobertaConfig(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=34,
        pad_token_id=1,
        bos_token_id=256,
        eos_token_id=257,
        type_vocab_size=1,
        num_labels=1,
        initializer_range=0.2,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
