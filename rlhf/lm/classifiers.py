"""Sequence-classification models of Hugging Face as scorers: a conversation in, one number out. No ensemble here.

A score is the logit of one output, as `AutoModelForSequenceClassification` gives it for that conversation alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.contracts.base import Message, Prompt, prompt_messages
from rlhf.contracts.errors import ScoringFailed
from rlhf.lm.chat import encode_text, render_messages
from rlhf.lm.loading import BUILDING

ENDLESS = 10**6
"""A tokenizer without a length says 1e30."""


@dataclass(frozen=True)
class ClassifierRow:
    """A conversation as one classifier reads it.

    Attributes:
        ids: token ids, at least one.
        types: token type ids, for models that tell prompt and response by them.
        truncated: the prompt was cut from the left to fit.
    """

    ids: list[int]
    types: list[int] | None
    truncated: bool


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode, and which of its outputs is the score.

    Attributes:
        output: index of the logit.
        max_length: most tokens of a conversation.
    """

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    output: int
    max_length: int

    def encode(self, prompt: Prompt, response: str) -> ClassifierRow:
        """The conversation in the tokenizer's chat template; as a pair of texts where it has none.

        Raises:
            ScoringFailed: the response has no token, or does not fit.
            InvalidInput: the chat template refuses the conversation.
        """
        length = len(encode_text(self.tokenizer, response))
        if not length:
            raise ScoringFailed("the response has no token; a score needs at least one: drop this sample")
        row = (
            self._encode_chat(prompt, response) if self.tokenizer.chat_template else self._encode_pair(prompt, response)
        )
        if row is None:
            raise ScoringFailed(
                f"the response has {length} tokens, and this model reads {self.max_length} in all, with the prompt and "
                "the marks around both; shorten the response"
            )
        return row

    @torch.no_grad()
    def score(self, rows: Sequence[ClassifierRow], *, token_budget: int) -> list[float]:
        """One logit a row. Args: rows, of `encode`; token_budget, padded tokens of a forward pass."""
        scores = [0.0] * len(rows)
        for batch in _batches(rows, token_budget):
            logits = self._forward([rows[index] for index in batch])
            for index, score in zip(batch, logits[:, self.output].float().tolist(), strict=True):
                scores[index] = score
        return scores

    def _encode_chat(self, prompt: Prompt, response: str) -> ClassifierRow | None:
        """None when it cannot be cut to fit: the template hides where the response begins, or there is no room."""
        turns = prompt_messages(prompt)
        text = render_messages(self.tokenizer, [*turns, Message(role="assistant", content=response)], answer=False)
        ids = encode_text(self.tokenizer, text)
        if len(ids) <= self.max_length:
            return ClassifierRow(ids, None, truncated=False)
        opened = render_messages(self.tokenizer, turns, answer=True)
        # Many models attend to the token that every text begins with, so it stays.
        start = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
        room = self.max_length - len(start)
        if not text.startswith(opened) or len(encode_text(self.tokenizer, text[len(opened) :])) >= room:
            return None
        return ClassifierRow(start + ids[-room:], None, truncated=True)

    def _encode_pair(self, prompt: Prompt, response: str) -> ClassifierRow | None:
        """With the marks that the tokenizer sets around a pair. None when the response does not fit."""
        text = "\n".join(message.content for message in prompt_messages(prompt))
        pair = self.tokenizer(text, response, verbose=False)
        truncated = len(pair["input_ids"]) > self.max_length
        if truncated:
            if len(self.tokenizer("", response, verbose=False)["input_ids"]) >= self.max_length:
                return None
            pair = self.tokenizer(text, response, truncation="only_first", max_length=self.max_length, verbose=False)
        tells_types = int(getattr(self.model.config, "type_vocab_size", 0)) > 1
        types = list(pair["token_type_ids"]) if tells_types and "token_type_ids" in pair else None
        return ClassifierRow(list(pair["input_ids"]), types, truncated)

    def _forward(self, rows: Sequence[ClassifierRow]) -> Tensor:
        """[B, outputs], of rows that are padded at the end."""
        device, length = self.model.device, max(len(row.ids) for row in rows)
        config = self.model.config.get_text_config()
        pad = config.pad_token_id
        if pad is None:
            # Then alone the last token is read whatever it is; in a batch, the last one that is not the pad token.
            ends = {row.ids[-1] for row in rows}
            pad = next(token for token in range(len(ends) + 1) if token not in ends)
        inputs = {
            "input_ids": torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows], device=device),
            "attention_mask": torch.tensor(
                [[1] * len(r.ids) + [0] * (length - len(r.ids)) for r in rows], device=device
            ),
        }
        if any(row.types is not None for row in rows):
            types = [(row.types or [0] * len(row.ids)) + [0] * (length - len(row.ids)) for row in rows]
            inputs["token_type_ids"] = torch.tensor(types, device=device)
        own, config.pad_token_id = config.pad_token_id, pad
        try:
            logits: Tensor = self.model(**inputs).logits
        finally:
            config.pad_token_id = own
        return logits


def load_classifier(
    source: str,
    *,
    revision: str | None = None,
    label: int | str | None = None,
    max_length: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Classifier:
    """Loads a model and its tokenizer: safetensors only, no code of the model's own, dropout off.

    Args:
        source: a local folder or a Hub id.
        revision: on the Hub.
        label: index or name of the output that is the score; None: the only one.
        max_length: tokens; None: as many as model and tokenizer hold.
        device: torch device.
        dtype: of the weights.

    Raises:
        OSError: the source does not exist or holds no safetensors weights; the message says which.
        ValueError: it has no trained head, not that output, or not that length; says what it has.
    """
    transformers.utils.logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    tokenizer.truncation_side = "left"
    with BUILDING:
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            source,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if loaded["missing_keys"]:
        raise ValueError(
            f"model={source!r} has no {min(loaded['missing_keys'])}, so that its scores would be random; name a model "
            "that was trained for sequence classification"
        )
    model.to(device).eval().requires_grad_(False)
    most = min(_positions(model), int(tokenizer.model_max_length))
    if max_length is not None and max_length > most:
        raise ValueError(f"max_length={max_length} exceeds the {most} tokens that {source} holds; lower it to that")
    return Classifier(tokenizer, model, _output(source, model.config, label), max_length or most)


def _output(source: str, config: PretrainedConfig, label: int | str | None) -> int:
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    if label is None:
        if len(names) > 1:
            raise ValueError(f"{source} has the outputs {known} and label is null; name the one that is the score")
        return 0
    if label in names:
        return names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    raise ValueError(f"label={label!r} is no output of {source}; it has {known}")


def _positions(model: PreTrainedModel) -> int:
    """Most tokens that the model holds; of learned positions, RoBERTa's kind counts on from its pad token's."""
    most = int(getattr(model.config.get_text_config(), "max_position_embeddings", ENDLESS))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            most = min(most, module.num_embeddings - module.padding_idx - 1)
    return most


def _batches(rows: Sequence[ClassifierRow], token_budget: int) -> Iterator[list[int]]:
    """Indices of rows of similar length with at most token_budget padded tokens (one row at least), longest first."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index].ids)):
        if batch and len(rows[batch[0]].ids) * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
