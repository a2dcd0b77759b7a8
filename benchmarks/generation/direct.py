"""`transformers.generate` in this process, a batch for each turn of the clients. Prints its timings as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.generation.work import PENALTY, Phase, Question, Timing, add_options, make_work, quantile


def main() -> int:
    """Does the work that the options define."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    options = parser.parse_args()
    from rlhf.lm.loading import load_language_model

    work, base = make_work(options, options.model), load_language_model(options.model)
    print(json.dumps([asdict(measure(base, phase, work.tokens)) for phase in work.phases]))
    return 0


def measure(base: Any, phase: Phase, tokens: int) -> Timing:
    """One phase; every request of a batch takes as long as the batch."""
    generate(base, phase.warm, min(8, tokens))
    seconds, firsts, texts = [], [], []
    for turn in phase.measured:
        started = time.perf_counter()
        made, first = generate(base, turn, tokens)
        seconds.append(time.perf_counter() - started)
        firsts.append(first - started)
        texts += made
    rate = phase.clients * tokens * len(seconds) / sum(seconds)
    return Timing(phase.clients, rate, quantile(seconds, 0.5), quantile(seconds, 0.95), quantile(firsts, 0.5), texts)


def generate(base: Any, questions: list[Question], tokens: int) -> tuple[list[str], float]:
    """Responses of one batch, and when each had its first token."""
    import torch

    from rlhf.lm.chat import encode_text

    rows = [encode_text(base.tokenizer, question.text) for question in questions]
    pad, width = base.tokenizer.pad_token_id, max(len(ids) for ids in rows)
    seen: list[float] = []

    def note(input_ids: Any, scores: Any, **_: Any) -> Any:
        """A stopping criterion that stops nothing: it is asked after every token."""
        seen.append(time.perf_counter())
        return torch.zeros(len(rows), dtype=torch.bool)

    with torch.inference_mode():
        output = base.model.generate(
            input_ids=torch.tensor([[pad] * (width - len(ids)) + ids for ids in rows]),
            attention_mask=torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows]),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            repetition_penalty=PENALTY,
            pad_token_id=pad,
            stopping_criteria=[note],
        )
    texts = base.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts, seen[0]


if __name__ == "__main__":
    sys.exit(main())
