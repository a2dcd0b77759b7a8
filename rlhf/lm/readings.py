"""What the frozen trunk makes of exchanges, computed once: all that the members of an ensemble need of them.

A member does not run over the text. It has one position, the token that closes the response, and its layers attend
from there to the keys and values that the frozen model computed. So K members cost K positions, not K texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.lm.exchanges import Exchange, PackedRows, batch_rows, make_rows, pack_rows
from rlhf.lm.layers import LayerStack


@dataclass(frozen=True)
class Readings:
    """N exchanges as the trunk reads them.

    Attributes:
        closing: [N, d] the closing token's hidden state where the members begin.
        mean: [N, d] the mean of the response's hidden states there, the closing token's included.
        keys_values: [tokens, M, 2, H, h] keys and values of M member layers; a prompt shared by several exchanges is
            stored once. M = 0 when members are heads only.
        spans: [N, 4] int64: first token and length of the prompt, first token and length of the response (without the
            closing token, whose keys and values are the members' own).
    """

    closing: Tensor
    mean: Tensor
    keys_values: Tensor
    spans: Tensor


@dataclass(frozen=True)
class ReadingBatch:
    """Some exchanges side by side, aligned at the end.

    Attributes:
        closing: [B, 1, d].
        mean: [B, d].
        keys_values: [M, 2, B, H, T, h]; positions before an exchange's first token are padding.
        mask: [B, 1, 1, T + 1] added to attention scores.
        positions: [B, 1] position of the closing token.
    """

    closing: Tensor
    mean: Tensor
    keys_values: Tensor
    mask: Tensor
    positions: Tensor

    def repeat(self, members: int) -> ReadingBatch:
        """The same exchanges once for each member, member-major."""
        return ReadingBatch(
            self.closing.repeat(members, 1, 1),
            self.mean.repeat(members, 1),
            self.keys_values.repeat(1, 1, members, 1, 1, 1),
            self.mask.repeat(members, 1, 1, 1),
            self.positions.repeat(members, 1),
        )


@torch.no_grad()
def read_exchanges(
    stack: LayerStack,
    exchanges: Sequence[Exchange],
    *,
    first: int,
    stop: int,
    token_budget: int,
    store_dtype: torch.dtype = torch.float32,
    after_batch: Callable[[int], None] = lambda tokens: None,
) -> Readings:
    """Runs the trunk over all exchanges; equal prompts are computed once where the family allows it.

    Args:
        stack: of the backbone.
        exchanges: at least one.
        first: the layer where members begin.
        stop: one past the members' last layer.
        token_budget: padded tokens of one forward pass.
        store_dtype: of the kept keys and values.
        after_batch: called with the tokens just computed; may raise to stop.
    """
    weight = next(stack.layers[0].parameters())
    closing = torch.empty(len(exchanges), stack.width, device=weight.device, dtype=weight.dtype)
    mean = torch.empty_like(closing)
    spans = torch.empty(len(exchanges), 4, dtype=torch.int64)
    stored: list[Tensor] = []
    used = 0
    for rows in batch_rows(make_rows(exchanges, share_prompts=stack.packs), token_budget=token_budget):
        packed = pack_rows(rows)
        hidden, kept = _run_trunk(stack, packed, first, stop)
        for number, row in enumerate(rows):
            row_start, prompt = used + number * packed.length, len(row.prompt_ids)
            start = prompt
            for index, ids in row.responses:
                end = start + len(ids) - 1
                closing[index] = hidden[number, end]
                mean[index] = hidden[number, start : end + 1].float().mean(0)
                spans[index] = torch.tensor([row_start, prompt, row_start + start, len(ids) - 1])
                start = end + 1
        stored.append(kept.to(store_dtype))
        used += packed.tokens
        after_batch(packed.tokens)
    return Readings(closing, mean, torch.cat(stored), spans)


def _run_trunk(stack: LayerStack, packed: PackedRows, first: int, stop: int) -> tuple[Tensor, Tensor]:
    """Hidden states where members begin, [R, L, d], and the member layers' keys and values, [R·L, M, 2, H, h]."""
    weight = next(stack.layers[0].parameters())
    ids, positions = packed.input_ids.to(weight.device), packed.position_ids.to(weight.device)
    mask = None if packed.mask is None else packed.mask.to(weight.device, weight.dtype)
    hidden = stack.run(stack.embed(ids, positions), 0, first, positions, mask)
    entering, kept = hidden, []
    for layer in range(first, stop):
        # The output of the last layer is not needed, only what members attend to in it.
        hidden = stack.run(hidden, layer - 1, layer, positions, mask) if layer > first else hidden
        kept.append(stack.keys_values(hidden, layer, positions))
    if not kept:
        return entering, entering.new_empty(packed.tokens, 0)
    # [M, 2, R, H, L, h] → [R, L, M, 2, H, h] → [R·L, M, 2, H, h]
    return entering, torch.stack(kept).permute(2, 4, 0, 1, 3, 5).flatten(0, 1)


def collate_readings(readings: Readings, indices: Tensor) -> ReadingBatch:
    """Gathers exchanges `indices`, [B] int64, padded at the start to the longest of them."""
    prompt_start, prompt, response_start, response = readings.spans[indices].unbind(1)
    lengths = prompt + response
    longest = int(lengths.max())
    device = readings.closing.device
    closing, mean = readings.closing[indices.to(device), None], readings.mean[indices.to(device)]
    positions = lengths[:, None].to(device)
    offset = torch.arange(longest)[None] - (longest - lengths)[:, None]
    mask = torch.zeros(len(indices), longest + 1, dtype=closing.dtype)
    mask[:, :longest].masked_fill_(offset < 0, torch.finfo(closing.dtype).min)
    if readings.keys_values.shape[1] == 0:
        return ReadingBatch(closing, mean, readings.keys_values.new_empty(0), mask[:, None, None].to(device), positions)
    in_response = offset >= prompt[:, None]
    token = torch.where(
        in_response, response_start[:, None] + offset - prompt[:, None], prompt_start[:, None] + offset
    ).clamp_min_(0)
    gathered = readings.keys_values[token.to(device)].to(closing.dtype)
    return ReadingBatch(
        closing,
        mean,
        gathered.permute(2, 3, 0, 4, 1, 5),  # [B, T, M, 2, H, h] → [M, 2, B, H, T, h]
        mask[:, None, None].to(device),
        positions,
    )
