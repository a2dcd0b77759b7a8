"""One step's experience as tensors: responses as [B, T], and rows that pack a prompt with all its samples.

A row is `prompt, response 1, response 2, ...`. Under a tree mask every response attends to the prompt and to itself
only, and its positions go on from the prompt's, so each gets exactly what it would get alone, while the prompt is
computed once. Families with local attention windows get one sample a row, where the mask is plain causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.trainer.experience.batch import ExperienceBatch


@dataclass(frozen=True)
class Row:
    """A prompt with some of its samples, laid out one after the other.

    Attributes:
        input_ids: [L] int64.
        position_ids: [L] int64; each response goes on from the prompt's last position.
        segments: [L] int64; 0 on the prompt, 1.. on the responses.
        source: [N] index into the row of the position that predicts each response token.
        sample: [N] index into the rollout's batch of the sample that each response token belongs to.
        offset: [N] index of each response token within its response.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor
    source: Tensor
    sample: Tensor
    offset: Tensor

    @property
    def length(self) -> int:
        """Tokens in the row."""
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Response tokens in the row."""
        return len(self.source)


@dataclass(frozen=True)
class Rollout:
    """A step's samples.

    Attributes:
        response_ids: [B, T] int64, 0 outside the mask.
        response_mask: [B, T] bool, True on response tokens including EOS; a prefix of each row.
        behavior_logprobs: [B, T] float32, from the engine at sampling.
        ended: [B] bool, False where the length limit cut the response.
        rewards: [B] float32, aggregated.
        scores: [B] float32, mean over members.
        uncertainty: [B] float32.
        group: [B] int64, equal for samples of one prompt.
        rows: cover every sample once.
    """

    response_ids: Tensor
    response_mask: Tensor
    behavior_logprobs: Tensor
    ended: Tensor
    rewards: Tensor
    scores: Tensor
    uncertainty: Tensor
    group: Tensor
    rows: list[Row]


@dataclass(frozen=True)
class Packed:
    """Rows padded at the end to one length.

    Attributes:
        input_ids: [R, L].
        position_ids: [R, L].
        mask: [R, 1, L, L] added to attention scores; None when every row holds one sample (plain causal attention).
        source: [N] index into the flattened [R·L] positions.
        sample: [N].
        offset: [N].
    """

    input_ids: Tensor
    position_ids: Tensor
    mask: Tensor | None
    source: Tensor
    sample: Tensor
    offset: Tensor


def collate(batches: Sequence[ExperienceBatch], *, row_tokens: int | None) -> Rollout:
    """Joins a step's batches.

    Args:
        batches: in shard order, together at least one sample.
        row_tokens: samples of a prompt share rows of at most so many tokens (one sample at least): the mask of a row
            takes their square. None: one sample a row.

    Raises:
        ValueError: samples of one group have different prompts.
    """
    responses = [ids for b in batches for ids in b.response_ids]
    prompts = [ids for b in batches for ids in b.prompt_ids]
    behavior = [logprobs for b in batches for logprobs in b.behavior_logprobs]
    width = max(len(ids) for ids in responses)
    shape = (len(responses), width)
    response_ids = torch.zeros(shape, dtype=torch.int64)
    behavior_logprobs = torch.zeros(shape, dtype=torch.float32)
    for i, (ids, logprobs) in enumerate(zip(responses, behavior, strict=True)):
        response_ids[i, : len(ids)] = _long(ids)
        behavior_logprobs[i, : len(ids)] = torch.from_numpy(np.array(logprobs, dtype=np.float32))
    lengths = torch.tensor([len(ids) for ids in responses])
    group = _groups(batches)
    return Rollout(
        response_ids=response_ids,
        response_mask=torch.arange(width)[None] < lengths[:, None],
        behavior_logprobs=behavior_logprobs,
        ended=_joined([b.ended for b in batches]).bool(),
        rewards=_joined([b.rewards for b in batches]).float(),
        scores=_joined([b.scores for b in batches]).float(),
        uncertainty=_joined([b.uncertainty for b in batches]).float(),
        group=group,
        rows=_rows(prompts, responses, group, row_tokens),
    )


def pad_rows(rows: Sequence[Row]) -> Packed:
    """Pads rows at the end and builds their mask."""
    length = max(row.length for row in rows)
    input_ids = torch.zeros((len(rows), length), dtype=torch.int64)
    position_ids = torch.zeros_like(input_ids)
    segments = torch.full_like(input_ids, -1)
    for i, row in enumerate(rows):
        input_ids[i, : row.length] = row.input_ids
        position_ids[i, : row.length] = row.position_ids
        segments[i, : row.length] = row.segments
    packed = any(int(row.segments.max()) > 1 for row in rows)
    return Packed(
        input_ids=input_ids,
        position_ids=position_ids,
        mask=tree_mask(segments) if packed else None,
        source=torch.cat([row.source + i * length for i, row in enumerate(rows)]),
        sample=torch.cat([row.sample for row in rows]),
        offset=torch.cat([row.offset for row in rows]),
    )


def tree_mask(segments: Tensor) -> Tensor:
    """[R, L] segments → [R, 1, L, L] float32: 0 where i may attend to j, the lowest float elsewhere.

    i attends to j ≤ i in the prompt (segment 0) or in its own segment; pads (-1) attend among themselves, which keeps
    their softmax finite, and no real token attends to them.
    """
    length = segments.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool).tril()
    related = (segments[:, None, :] == segments[:, :, None]) | (segments[:, None, :] == 0)
    allowed = related & causal[None]
    return torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]


def split_by_tokens(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cuts rows, sorted by length, into micro-batches of at most `budget` padded tokens (one row at least)."""
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda i: -lengths[i]):
        # Sorted descending: the first row of a part is its longest, so padded tokens = its length × rows.
        if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def _rows(
    prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], group: Tensor, row_tokens: int | None
) -> list[Row]:
    members: dict[int, list[int]] = {}
    for sample, key in enumerate(group.tolist()):
        members.setdefault(key, []).append(sample)
    rows = []
    for samples in members.values():
        prompt = prompts[samples[0]]
        odd = [sample for sample in samples if not np.array_equal(prompts[sample], prompt)]
        if odd:
            raise ValueError(f"samples {samples[0]} and {odd[0]} are of one group but have different prompts")
        lengths = [len(responses[sample]) for sample in samples]
        for part in _parts(samples, lengths, None if row_tokens is None else row_tokens - len(prompt)):
            rows.append(_row(_long(prompt), part, responses))
    return rows


def _parts(samples: list[int], lengths: list[int], budget: int | None) -> list[list[int]]:
    """Cuts samples, in order, into parts of at most `budget` tokens; each sample alone when it is None."""
    parts: list[list[int]] = []
    used = 0
    for sample, length in zip(samples, lengths, strict=True):
        if parts and budget is not None and used + length <= budget:
            parts[-1].append(sample)
            used += length
        else:
            parts.append([sample])
            used = length
    return parts


def _row(prompt: Tensor, samples: list[int], responses: Sequence[np.ndarray]) -> Row:
    ids, positions = [prompt], [torch.arange(len(prompt))]
    segments = [torch.zeros(len(prompt), dtype=torch.int64)]
    source, owner, offset = [], [], []
    start = len(prompt)
    for segment, sample in enumerate(samples, start=1):
        response = _long(responses[sample])
        steps = torch.arange(len(response))
        ids.append(response)
        positions.append(steps + len(prompt))
        segments.append(torch.full_like(response, segment))
        # The first token is predicted at the prompt's last position, the others at their predecessor in the response.
        source.append(torch.where(steps == 0, len(prompt) - 1, start + steps - 1))
        owner.append(torch.full_like(response, sample))
        offset.append(steps)
        start += len(response)
    return Row(
        torch.cat(ids),
        torch.cat(positions),
        torch.cat(segments),
        torch.cat(source),
        torch.cat(owner),
        torch.cat(offset),
    )


def _groups(batches: Sequence[ExperienceBatch]) -> Tensor:
    parts, start = [], 0
    for batch in batches:
        part = torch.from_numpy(np.array(batch.group, dtype=np.int64))
        parts.append(part + start)
        start += int(part.max()) + 1 if len(part) else 0
    return torch.cat(parts)


def _joined(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _long(ids: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(ids, dtype=np.int64))
