"""Prompt and response as token ids to be scored, and rows that pack a prompt with all its responses. No model here.

A row is `prompt, response 1, response 2, ...`. Under a tree mask each response attends to the prompt and to itself
only, and its positions go on from the prompt's, so that it gets what it would get alone while the prompt is computed
once. Families with local attention windows get one response a row, where plain causal attention needs no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.contracts.base import Prompt, prompt_messages
from rlhf.contracts.errors import ScoringFailed
from rlhf.lm.chat import RenderedPrompt, encode_prompt, encode_text


@dataclass(frozen=True)
class Exchange:
    """A prompt and the response to score.

    Attributes:
        prompt_ids: the rendered prompt, at least one token.
        response_ids: the response, at least one token, and the EOS that closes it.
        truncated: the prompt was cut from the left to fit.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    truncated: bool

    @property
    def tokens(self) -> int:
        """Tokens of both together."""
        return len(self.prompt_ids) + len(self.response_ids)


def encode_exchange(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt | RenderedPrompt, response: str, *, max_length: int
) -> Exchange:
    """Encodes prompt and response separately, so that where the response begins is exact.

    EOS is always appended: a reward model reads text, which does not say whether the writer had ended, and a closing
    token gives one position that has seen the whole response *as the whole answer*.

    Args:
        tokenizer: of the backbone.
        prompt: text (one user turn), a conversation, or one that is rendered already.
        response: text; not stripped, so that what is scored is what was written.
        max_length: tokens; a longer prompt loses its beginning, the response is never cut.

    Raises:
        ScoringFailed: the response has no token, or does not fit beside one token of the prompt, or a text has half of
            a surrogate pair, which JSON can spell and no tokenizer can read.
        InvalidInput: the chat template refuses the prompt.
    """
    check_characters(prompt, response)
    response_ids = encode_text(tokenizer, response)
    if not response_ids:
        raise ScoringFailed("the response is empty; a score needs at least one token: drop this sample or give it text")
    room = max_length - len(response_ids) - 1
    if room < 1:
        raise ScoringFailed(
            f"the response has {len(response_ids)} tokens; this reward model reads {max_length} in all, of which 1 "
            f"closes the response and 1 at least is the prompt's: shorten the response to {max_length - 2} tokens"
        )
    prompt_ids = encode_prompt(tokenizer, prompt)
    eos = int(tokenizer.eos_token_id)
    return Exchange(tuple(prompt_ids[-room:]), (*response_ids, eos), truncated=len(prompt_ids) > room)


def check_characters(prompt: Prompt | RenderedPrompt, response: str) -> None:
    """Raises ScoringFailed for half of a surrogate pair, which JSON can spell and no tokenizer can read."""
    texts = [prompt.text] if isinstance(prompt, RenderedPrompt) else [m.content for m in prompt_messages(prompt)]
    for where, text in (("the response", response), *(("the prompt", text) for text in texts)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            said = f"{where} has the lone surrogate {text[error.start]!r}; send whole characters"
            raise ScoringFailed(said) from error


@dataclass(frozen=True)
class Row:
    """A prompt with some of its responses.

    Attributes:
        prompt_ids: of all the responses.
        responses: (index into the exchanges, token ids).
    """

    prompt_ids: tuple[int, ...]
    responses: list[tuple[int, tuple[int, ...]]]

    @property
    def length(self) -> int:
        """Tokens in the row."""
        return len(self.prompt_ids) + sum(len(ids) for _, ids in self.responses)


@dataclass(frozen=True)
class PackedRows:
    """Rows padded at the end to one length.

    Attributes:
        input_ids: [R, L] int64, 0 on pads.
        position_ids: [R, L] int64.
        mask: [R, 1, L, L] float32 added to attention scores; None when every row holds one response: then attention is
            plainly causal, and no real token attends to the pads behind it.
        source: [N] int64, where each response token lies in the flattened [R·L] positions, by row and then in order.
        owner: [N] int64, which exchange each response token belongs to.
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor | None
    source: Tensor
    owner: Tensor

    @property
    def length(self) -> int:
        """L."""
        return self.input_ids.shape[1]

    @property
    def tokens(self) -> int:
        """Tokens to compute, pads included."""
        return self.input_ids.numel()


def make_rows(exchanges: Sequence[Exchange], *, share_prompts: bool, row_tokens: int = 512) -> list[Row]:
    """Lays out all exchanges.

    Args:
        exchanges: to be scored.
        share_prompts: whether responses to equal prompts may lie in one row.
        row_tokens: a shared row ends when it would get longer: attention costs the square of it.
    """
    rows: list[Row] = []
    growing: dict[tuple[int, ...], Row] = {}
    for index, exchange in enumerate(exchanges):
        row = growing.get(exchange.prompt_ids) if share_prompts else None
        if row is None or row.length + len(exchange.response_ids) > row_tokens:
            row = growing[exchange.prompt_ids] = Row(exchange.prompt_ids, [])
            rows.append(row)
        row.responses.append((index, exchange.response_ids))
    return rows


def batch_rows(rows: Sequence[Row], *, token_budget: int) -> Iterator[list[Row]]:
    """Batches of rows of similar length with at most token_budget padded tokens (one row at least), longest first."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if batch and batch[0].length * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def pack_rows(rows: Sequence[Row]) -> PackedRows:
    """Pads rows at the end and builds their mask."""
    length = max(row.length for row in rows)
    input_ids = torch.zeros((len(rows), length), dtype=torch.int64)
    position_ids = torch.zeros_like(input_ids)
    segments = torch.full_like(input_ids, -1)
    source: list[int] = []
    owner: list[int] = []
    for number, row in enumerate(rows):
        start = len(row.prompt_ids)
        input_ids[number, :start] = torch.tensor(row.prompt_ids)
        position_ids[number, :start] = torch.arange(start)
        segments[number, :start] = 0
        for segment, (index, ids) in enumerate(row.responses, start=1):
            stop = start + len(ids)
            input_ids[number, start:stop] = torch.tensor(ids)
            position_ids[number, start:stop] = torch.arange(len(ids)) + len(row.prompt_ids)
            segments[number, start:stop] = segment
            source.extend(range(number * length + start, number * length + stop))
            owner.extend([index] * len(ids))
            start = stop
    shared = any(len(row.responses) > 1 for row in rows)
    return PackedRows(
        input_ids=input_ids,
        position_ids=position_ids,
        mask=tree_mask(segments) if shared else None,
        source=torch.tensor(source),
        owner=torch.tensor(owner),
    )


def tree_mask(segments: Tensor) -> Tensor:
    """[R, L] segments → [R, 1, L, L] float32: 0 where a position may attend, the lowest float elsewhere.

    A position sees earlier ones of the prompt (segment 0) and of its own segment. Pads (-1) see each other, which keeps
    their softmax finite.
    """
    length = segments.shape[1]
    related = (segments[:, None, :] == segments[:, :, None]) | (segments[:, None, :] == 0)
    allowed = related & torch.ones((length, length), dtype=torch.bool).tril()
    return torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]
