"""The next token of every row, from its logits, its settings and what it has said so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.policy.engine.history import History
from services.policy.engine.penalties import ban_repeated_ngrams, ban_tokens, penalise_counts, penalise_repetition
from services.policy.engine.rows import Row, RowSettings
from services.policy.engine.sampling import draw, keep_min_p, keep_top_k, keep_top_p, keep_typical


@dataclass(frozen=True)
class Choice:
    """One entry a row. A row without any allowed token, or with logits that are not numbers, has behavior NaN.

    Attributes:
        tokens: chosen.
        behavior: log-probability of each under the distribution sampled from.
        model: the same under the plain model at this temperature; None when no row asks for it.
        top: the most likely tokens with their log-probabilities, for rows that ask for them.
    """

    tokens: list[int]
    behavior: list[float]
    model: list[float] | None
    top: list[list[tuple[int, float]]]


def choose(logits: Tensor, rows: list[Row], settings: RowSettings, history: History, eos: Tensor) -> Choice:
    """Penalties, temperature, filters, draw, in this order.

    Args:
        logits: [B, V] float32 of the plain model.
        rows: B, whose random numbers are used.
        settings: of the rows.
        history: of the rows.
        eos: [E] token ids.
    """
    uniforms = torch.tensor([row.uniforms.next() for row in rows], device=logits.device)
    early = [row.sampling.min_new_tokens > len(row.token_ids) for row in rows]
    scores = logits
    changed = settings.penalised or any(early)
    if changed:
        scores = _penalise(logits.clone(), settings, history)
        if any(early):
            scores = ban_tokens(scores, torch.tensor(early, device=logits.device), eos)
    unfiltered = _temper(scores, settings)
    scores = _filter(unfiltered, settings)
    tokens, behavior = draw(scores, uniforms, settings.greedy)
    if not any(row.extras.model_logprobs for row in rows):
        model = None
    elif scores is unfiltered and not changed:
        model = behavior
    else:
        plain = _temper(logits, settings) if changed else unfiltered
        model = plain.gather(1, tokens[:, None])[:, 0] - plain.logsumexp(-1)
    return Choice(
        tokens.tolist(), behavior.tolist(), None if model is None else model.tolist(), _likeliest(scores, rows)
    )


def _penalise(scores: Tensor, settings: RowSettings, history: History) -> Tensor:
    """Args: scores, [B, V], changed."""
    if settings.repetition_used:
        scores = penalise_repetition(scores, history.ids, settings.repetition_penalty)
    if settings.counts_used:
        scores = penalise_counts(
            scores, history.ids, history.starts, settings.frequency_penalty, settings.presence_penalty
        )
    if settings.ngram_used:
        scores = ban_repeated_ngrams(scores, history.ids, history.starts, settings.ngram)
    return scores


def _temper(scores: Tensor, settings: RowSettings) -> Tensor:
    return scores / settings.temperature[:, None] if settings.tempered else scores


def _filter(scores: Tensor, settings: RowSettings) -> Tensor:
    if settings.top_k_used:
        scores = keep_top_k(scores, settings.top_k)
    if settings.top_p_used:
        scores = keep_top_p(scores, settings.top_p)
    if settings.min_p_used:
        scores = keep_min_p(scores, settings.min_p)
    if settings.typical_used:
        scores = keep_typical(scores, settings.typical_p)
    return scores


def _likeliest(scores: Tensor, rows: list[Row]) -> list[list[tuple[int, float]]]:
    most = max(row.extras.top_logprobs for row in rows)
    if most == 0:
        return [[] for _ in rows]
    best = scores.log_softmax(-1).topk(min(most, scores.shape[1]))
    return [
        list(zip(ids, values, strict=True))[: row.extras.top_logprobs]
        for row, ids, values in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
    ]
