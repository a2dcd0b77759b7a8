"""The decode loop: prompts are computed once each, rows that finish leave the batch, logits become tokens.

It works on any causal language model whose attention reads a `transformers` cache.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlhf.contracts.errors import GenerationFailed
from rlhf.lm.loading import LanguageModel
from services.policy.engine.cache import BatchCache
from services.policy.engine.penalties import ban_repeated_ngrams, ban_tokens, penalise_counts, penalise_repetition
from services.policy.engine.rows import Row, RowSettings
from services.policy.engine.sampling import draw, keep_min_p, keep_top_k, keep_top_p, keep_typical


@torch.inference_mode()
def decode(base: LanguageModel, rows: list[Row], progressed: Callable[[], object] = lambda: None) -> None:
    """Generates until every row has a finish reason, a failure, or is abandoned. Results are in the rows.

    Args:
        base: model, tokenizer and EOS ids.
        rows: responses to make; all fit the model's length together (longest prompt + most new tokens).
    """
    batch = Batch(base, rows)
    while batch.rows:
        batch.step()
        progressed()


class Batch:
    """Rows generated together. Column layout: prompts padded on the left, then one column a step."""

    def __init__(self, base: LanguageModel, rows: list[Row]) -> None:
        """Computes the distinct prompts and repeats their cache for the rows."""
        self.model = base.model
        self.device = base.model.device
        self.eos_ids = frozenset(base.eos_ids)
        self._eos = torch.tensor(base.eos_ids, device=self.device)
        self.rows = list(rows)
        self.settings = RowSettings.of(rows, self.device)
        self._last_only = "logits_to_keep" in inspect.signature(self.model.forward).parameters

        distinct = {ids: i for i, ids in enumerate(dict.fromkeys(tuple(row.prompt_ids) for row in rows))}
        source = torch.tensor([distinct[tuple(row.prompt_ids)] for row in rows], device=self.device)
        prompts, starts = pad_left([list(ids) for ids in distinct], self.device)
        width = prompts.shape[1]
        room = width + max(row.sampling.max_new_tokens for row in rows)
        self.columns = width
        self.starts = starts[source]
        self.ids = torch.empty(len(rows), room, dtype=torch.int64, device=self.device)
        self.ids[:, :width] = prompts[source]
        self.mask = torch.arange(room, device=self.device) >= self.starts[:, None]

        mask = torch.arange(width, device=self.device) >= starts[:, None]
        prefilled = DynamicCache()
        logits = self._forward(prompts, mask, (mask.cumsum(-1) - 1).clamp_min(0), prefilled)
        for row in self.rows:
            if row.extras.prompt_logprobs:
                ids = torch.tensor([row.prompt_ids], device=self.device)
                full = self.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
                row.prompt_logprobs = full.gather(1, ids[0, 1:, None])[:, 0].tolist()
        self.logits = logits[source]
        self.cache = BatchCache(prefilled, room, source)

    def step(self) -> None:
        """Chooses every row's next token, lets finished rows go, and computes the next logits."""
        tokens, behavior, model = self._choose()
        self.ids[: len(self.rows), self.columns] = tokens
        self.columns += 1
        values = zip(self.rows, tokens.tolist(), behavior.tolist(), model.tolist(), strict=True)
        for row, token, behavior_logprob, model_logprob in values:
            if behavior_logprob != behavior_logprob:  # NaN
                row.failure = GenerationFailed(describe_failure(row))
            else:
                row.add(token, behavior_logprob, model_logprob, self.eos_ids)
        self._let_go()
        if self.rows:
            count = len(self.rows)
            positions = (self.columns - 1 - self.starts)[:, None]
            self.logits = self._forward(
                self.ids[:count, self.columns - 1 : self.columns],
                self.mask[:count, : self.columns],
                positions,
                self.cache,
            )

    def _choose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B], and their log-probabilities [B] under the sampled distribution and under the plain model."""
        settings, ids = self.settings, self.ids[: len(self.rows), : self.columns]
        uniforms = torch.tensor([row.uniforms.next() for row in self.rows], device=self.device)
        temperature = settings.temperature[:, None]
        plain = self.logits / temperature
        scores = self._penalised(ids)
        scores = plain if scores is self.logits else scores / temperature
        if bool((settings.top_k > 0).any()):
            scores = keep_top_k(scores, settings.top_k)
        if bool((settings.top_p < 1).any()):
            scores = keep_top_p(scores, settings.top_p)
        if bool((settings.min_p > 0).any()):
            scores = keep_min_p(scores, settings.min_p)
        if bool((settings.typical_p < 1).any()):
            scores = keep_typical(scores, settings.typical_p)
        tokens, behavior = draw(scores, uniforms, settings.greedy)
        most = max(row.extras.top_logprobs for row in self.rows)
        if most:
            best = scores.log_softmax(-1).topk(min(most, scores.shape[1]))
            for row, ids_, values in zip(self.rows, best.indices.tolist(), best.values.tolist(), strict=True):
                if row.extras.top_logprobs:
                    row.top_logprobs.append(list(zip(ids_, values, strict=True))[: row.extras.top_logprobs])
        if scores is plain:
            return tokens, behavior, behavior
        model = plain.gather(1, tokens[:, None])[:, 0] - plain.logsumexp(-1)
        return tokens, behavior, model

    def _penalised(self, ids: Tensor) -> Tensor:
        settings, logits = self.settings, self.logits
        if bool((settings.repetition_penalty != 1).any()):
            logits = penalise_repetition(logits, ids, settings.repetition_penalty)
        if bool(((settings.frequency_penalty != 0) | (settings.presence_penalty != 0)).any()):
            logits = penalise_counts(logits, ids, self.starts, settings.frequency_penalty, settings.presence_penalty)
        if bool((settings.ngram > 0).any()):
            logits = ban_repeated_ngrams(logits, ids, self.starts, settings.ngram)
        # Every row of the batch has made the same number of tokens.
        early = settings.min_new_tokens > len(self.rows[0].token_ids)
        if bool(early.any()):
            logits = ban_tokens(logits, early, self._eos)
        return logits

    def _let_go(self) -> None:
        """Removes rows that are done: the last row takes the place of one that leaves, so that others stay put."""
        done = [row.finish_reason is not None or row.failure is not None or row.abandoned.is_set() for row in self.rows]
        if not any(done):
            return
        order = list(range(len(self.rows)))
        for hole in range(len(order) - 1, -1, -1):
            if done[hole]:
                last = order.pop()
                if hole < len(order):
                    order[hole] = last
                    self.cache.move_row(len(order), hole)
        self.rows = [self.rows[i] for i in order]
        if self.rows:
            self.cache.keep_rows(len(order))
            kept = torch.tensor(order, device=self.device)
            self.ids, self.mask, self.starts = self.ids[kept], self.mask[kept], self.starts[kept]
            self.settings = RowSettings.of(self.rows, self.device)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: object) -> Tensor:
        """Logits [B, V] float32 at the last column."""
        extra = {"logits_to_keep": 1} if self._last_only else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, **extra
        )
        return cast(Tensor, output.logits[:, -1].float())


def pad_left(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as one tensor.

    Returns:
        ids [P, L], where a pad repeats its prompt's first token (it is masked, and no penalty sees a new token by
        it), and starts [P], the first column of each prompt.
    """
    width = max(len(ids) for ids in prompts)
    padded = [[ids[0]] * (width - len(ids)) + ids for ids in prompts]
    starts = [width - len(ids) for ids in prompts]
    return torch.tensor(padded, device=device), torch.tensor(starts, device=device)


def describe_failure(row: Row) -> str:
    """Why no token could be chosen for the row."""
    made = f"prompt {row.prompt_index}, sample {row.sample_index}: after {len(row.token_ids)} tokens"
    if row.sampling.no_repeat_ngram_size or row.sampling.min_new_tokens:
        return (
            f"{made} no token was allowed any more with no_repeat_ngram_size={row.sampling.no_repeat_ngram_size} and "
            f"min_new_tokens={row.sampling.min_new_tokens}; raise the first or lower the second"
        )
    return f"{made} the model's logits were not numbers; its adapter's weights are likely broken"


@torch.inference_mode()
def check_cache(model: PreTrainedModel, *, tolerance: float = 1e-3) -> None:
    """Compares decoding with the cache, beside a shorter prompt, with a plain forward pass on one probe.

    Raises:
        ValueError: they differ by more than tolerance (relative), so generation would follow another model.
    """
    vocabulary = int(model.config.vocab_size)
    long, short = [[(7 * i + 3) % vocabulary for i in range(n)] for n in (12, 5)]
    prompts, starts = pad_left([long[:-1], short[:-1]], model.device)
    mask = torch.arange(len(long), device=model.device) >= starts[:, None]
    prefilled = DynamicCache()
    first = mask[:, :-1]
    model(
        input_ids=prompts,
        attention_mask=first,
        position_ids=(first.cumsum(-1) - 1).clamp_min(0),
        past_key_values=prefilled,
        use_cache=True,
    )
    cache = BatchCache(prefilled, len(long), torch.tensor([0, 1], device=model.device))
    last = torch.tensor([long[-1:], short[-1:]], device=model.device)
    positions = torch.tensor([[len(long) - 1], [len(short) - 1]], device=model.device)
    ours = model(input_ids=last, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    for row, ids in enumerate((long, short)):
        own = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0, -1]
        worst = float((ours.logits[row, -1] - own).abs().max() / own.abs().max().clamp_min(1.0))
        if not worst <= tolerance:
            raise ValueError(
                f"decoding {model.config.model_type} with a cache differs from its forward pass by {worst:.2g} "
                f"(relative; allowed {tolerance}); this family's attention cannot be served yet"
            )
