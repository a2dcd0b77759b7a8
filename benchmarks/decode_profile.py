"""`make bench-decode-profile`: where the embedded engine's time goes, by part, at several numbers of rows. No HTTP.

Prompts of the demo, greedy, repetition penalty 1.2, exactly as many tokens each: the work of bench-generate. The parts:

    prompts     computing the prompts
    products    multiplying by the model's weights while decoding, its output layer included
    attention   products with keys and values while decoding, and their softmax
    rest        of the forward pass while decoding: norms, rotary positions, activation, cache
    choice      penalties, choosing tokens, log-probabilities, stop conditions, bookkeeping

and `slowdown`: a step's products here against the same products alone in a loop, whose caches hold nothing else; above
that loop no engine with these kernels gets.

make bench-decode-profile ARGS="--clients 1 8 32"
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.generation.bound import fastest, make_step, read_weights
from benchmarks.generation.work import PENALTY, Work, add_options, make_work

PRODUCTS = ("mkldnn::_linear_pointwise", "aten::addmm", "aten::mm")
ATTENTION = ("aten::baddbmm", "aten::bmm", "aten::_softmax", "aten::_scaled_dot_product_flash_attention_for_cpu")
PARTS = ("prompts", "products", "attention", "rest", "choice")


@dataclass
class Timed:
    """A forward pass that counts the seconds of its calls."""

    forward: Any
    seconds: float = 0.0

    @property
    def shapes(self) -> Any:
        """Of the layers' caches."""
        return self.forward.shapes

    def last(self, *arguments: Any) -> Any:
        """See Forward."""
        started = time.perf_counter()
        logits = self.forward.last(*arguments)
        self.seconds += time.perf_counter() - started
        return logits


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    # As the policy's processes do (docs/decisions/0013); read when OpenMP starts, so before torch.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from rlhf.local.weights import ensure_smollm2

    model = options.model or str(ensure_smollm2(say=lambda line: print(line, file=sys.stderr)))
    alone = products_alone(model, options.clients)
    rows = [
        {"rows": each["rows"], **each, "slowdown": each.pop("product_s") / alone[each["rows"]]}
        for each in profile(make_work(options, model))
    ]
    print(f"{'rows':>5}{'tokens/s':>10}" + "".join(f"{part:>11}" for part in PARTS) + f"{'slowdown':>11}")
    for row in rows:
        shares = "".join(f"{row[part]:>11.0%}" for part in PARTS)
        print(f"{row['rows']:>5}{row['tokens_per_s']:>10.1f}{shares}{row['slowdown']:>11.2f}")
    print(json.dumps({"profile": rows}))
    return 0


def products_alone(model: str, counts: list[int]) -> dict[int, float]:
    """Seconds of one step's products, packed and joined as the engine has them, by number of rows."""
    import torch

    step = make_step(read_weights(model, joined=True), "packed")
    with torch.inference_mode():
        return {rows: fastest(step, rows, 3.0) for rows in counts}


def profile(work: Work) -> list[dict[str, Any]]:
    """Shares of the parts, tokens/s, and the seconds of one step's products, for each number of rows."""
    from rlhf.lm.loading import load_language_model
    from services.policy.engine.forward import build_forward

    base = load_language_model(work.model)
    forward, _ = build_forward(base, packed=True)
    made = []
    for phase in work.phases:
        generate(base, Timed(forward), [q.text for q in phase.warm], work.tokens)
        turns = [generate(base, Timed(forward), [q.text for q in turn], work.tokens) for turn in phase.measured]
        prompt_s, forward_s, decode_s = (sum(turn[i] for turn in turns) for i in range(3))
        total = prompt_s + decode_s
        product, attention, everything = shares_of_forward(base, forward, [q.text for q in phase.warm], work.tokens)
        # The profiler slows every operation down alike, more or less: its shares are applied to unprofiled seconds.
        seconds = {
            "prompts": prompt_s,
            "products": forward_s * product / everything,
            "attention": forward_s * attention / everything,
            "rest": forward_s * (1 - (product + attention) / everything),
            "choice": decode_s - forward_s,
        }
        steps = len(turns) * (work.tokens - 1)
        made.append(
            {
                "rows": phase.clients,
                "tokens_per_s": len(turns) * phase.clients * work.tokens / total,
                "product_s": seconds["products"] / steps,
                **{part: value / total for part, value in seconds.items()},
            }
        )
    return made


def generate(base: Any, forward: Timed, prompts: list[str], tokens: int) -> tuple[float, float, float]:
    """Answers prompts. Returns seconds: of the prompts, of the forward passes while decoding, of all decoding."""
    batch, prompt_s = begin(base, forward, prompts, tokens)
    forward.seconds = 0.0
    started = time.perf_counter()
    while batch.rows:
        batch.step()
    return prompt_s, forward.seconds, time.perf_counter() - started


def begin(base: Any, forward: Timed, prompts: list[str], tokens: int) -> tuple[Any, float]:
    """A batch whose prompts are computed, and the seconds that took."""
    from rlhf.contracts.policy import SamplingParams
    from services.policy.engine.batch import Batch
    from services.policy.engine.prefill import Prefill
    from services.policy.engine.requests import PLAIN, Limits, build_request

    limits = Limits()
    sampling = SamplingParams(temperature=0, repetition_penalty=PENALTY, max_new_tokens=tokens, min_new_tokens=tokens)
    ids = [base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    rows = build_request(base, ids, sampling, None, limits, PLAIN).rows
    batch = Batch(forward, base.eos_ids)
    started = time.perf_counter()
    prefill = Prefill(forward, rows)
    while not prefill.done:
        prefill.advance(limits.max_prefill_tokens)
    batch.join(prefill)
    return batch, time.perf_counter() - started


def shares_of_forward(base: Any, forward: Any, prompts: list[str], tokens: int) -> tuple[float, float, float]:
    """Seconds of the products with weights, of attention, and of everything in the forward passes of some steps."""
    import torch

    class Marked(Timed):
        def last(self, *arguments: Any) -> Any:
            with torch.profiler.record_function("forward"):
                return super().last(*arguments)

    marked = Marked(forward)
    batch, _ = begin(base, marked, prompts, tokens)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(tokens // 4):
            batch.step()
    events = {event.key: event for event in profiler.key_averages()}

    def own(names: tuple[str, ...]) -> float:
        return float(sum(events[name].self_cpu_time_total for name in names if name in events))

    return own(PRODUCTS), own(ATTENTION), float(events["forward"].cpu_time_total)


if __name__ == "__main__":
    sys.exit(main())
