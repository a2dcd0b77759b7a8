"""`make bench-policy`: the policy engine beside `transformers.generate`, the same work in turn, in one process.

The work is the demo's: 8 prompts × 4 samples at temperature 0.7. `full` makes every response as long as the limit;
`natural` lets responses end, after which the engine spends nothing on them. Each figure is the best of the repeats,
since other programs only ever make a run slower.

make bench-policy ARGS="--threads 2 --repeats 3"
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

QUESTIONS = [
    "What is the capital of France?",
    "How do I boil an egg?",
    "List three fruits that are red.",
    "Give me advice on sleeping better.",
    "Hello there, how are you?",
    "Summarise: The cat sat on the mat and then left the house to find some food in the garden.",
    "How can I learn to play the guitar quickly?",
    "Rewrite this politely: give me the report now.",
]
SYSTEM = "Answer in one or two short sentences."
SAMPLES, NEW_TOKENS, TEMPERATURE = 4, 40, 0.7


@dataclass(frozen=True)
class Timing:
    """One run. Tokens are response tokens, EOS included."""

    work: str
    engine: str
    tokens: int
    wall_s: float
    cpu_s: float

    @property
    def tokens_per_s(self) -> float:
        """By the clock on the wall."""
        return self.tokens / self.wall_s


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="bench-policy", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch threads")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    torch.set_num_threads(options.threads)
    best: dict[tuple[str, str], Timing] = {}
    runs = prepare(options.model)
    for _ in range(options.repeats):
        for (work, engine), run in runs.items():
            timing = measure(work, engine, run)
            print(f"  {work}, {engine}: {timing.wall_s:.2f} s", file=sys.stderr)
            held = best.setdefault((work, engine), timing)
            if timing.wall_s / timing.tokens < held.wall_s / held.tokens:
                best[work, engine] = timing
    report(list(best.values()), options.threads)
    return 0


def prepare(model: str | None) -> dict[tuple[str, str], Callable[[], int]]:
    """What to run, by work and engine; each returns the number of response tokens it made."""
    from rlhf.contracts.base import Message
    from rlhf.lm.chat import encode_prompt
    from rlhf.lm.loading import load_language_model
    from rlhf.local.weights import ensure_smollm2
    from services.policy.engine.linears import install_linears

    source = model or str(ensure_smollm2())
    untouched, served = load_language_model(source), load_language_model(source)
    install_linears(served.model, packed=True)
    system = Message(role="system", content=SYSTEM)
    prompts = [encode_prompt(served.tokenizer, [system, Message(role="user", content=q)]) for q in QUESTIONS]
    runs: dict[tuple[str, str], Callable[[], int]] = {}
    for work, least in (("full", NEW_TOKENS), ("natural", 0)):
        runs[work, "transformers.generate"] = _transformers(untouched, prompts, least)
        runs[work, "policy engine"] = _engine(served, prompts, least)
    return runs


def _engine(base: Any, prompts: list[list[int]], least: int) -> Callable[[], int]:
    from rlhf.contracts.policy import SamplingParams
    from services.policy.engine.decoding import decode
    from services.policy.engine.requests import Limits, build_request

    sampling = SamplingParams(
        max_new_tokens=NEW_TOKENS, min_new_tokens=least, temperature=TEMPERATURE, n=SAMPLES, seed=1
    )

    def run() -> int:
        rows = build_request(base, prompts, sampling, None, Limits()).rows
        decode(base, rows)
        return sum(len(row.token_ids) for row in rows)

    return run


def _transformers(base: Any, prompts: list[list[int]], least: int) -> Callable[[], int]:
    import torch

    pad, eos = base.tokenizer.pad_token_id, set(base.eos_ids)
    width = max(len(ids) for ids in prompts)
    rows = [ids for ids in prompts for _ in range(SAMPLES)]
    inputs = torch.tensor([[pad] * (width - len(ids)) + ids for ids in rows])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rows])

    def run() -> int:
        torch.manual_seed(1)
        with torch.inference_mode():
            output = base.model.generate(
                input_ids=inputs,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=least,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                pad_token_id=pad,
            )
        responses = output[:, width:].tolist()
        return sum(next((i for i, t in enumerate(ids, 1) if t in eos), len(ids)) for ids in responses)

    return run


def measure(work: str, engine: str, run: Callable[[], int]) -> Timing:
    """Runs once in a thread of its own, as the service does."""
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(run()))
    wall, cpu = time.perf_counter(), time.process_time()
    thread.start()
    thread.join()
    return Timing(work, engine, made[0], time.perf_counter() - wall, time.process_time() - cpu)


def report(timings: list[Timing], threads: int) -> None:
    """The table, and the same as JSON on the last line."""
    rows = len(QUESTIONS) * SAMPLES
    print(f"\n{rows} responses of at most {NEW_TOKENS} tokens, temperature {TEMPERATURE}, float32, {threads} threads\n")
    print(f"{'work':<8} {'engine':<22} {'tokens':>6} {'wall s':>7} {'CPU s':>7} {'tokens/s':>9} {'time a token':>13}")
    by_work = {(t.work, t.engine): t for t in timings}
    for timing in timings:
        ratio = by_work[timing.work, "transformers.generate"].tokens_per_s / timing.tokens_per_s
        print(
            f"{timing.work:<8} {timing.engine:<22} {timing.tokens:>6} {timing.wall_s:>7.2f} {timing.cpu_s:>7.2f} "
            f"{timing.tokens_per_s:>9.0f} {ratio:>12.2f}×"
        )
    figures = [{**asdict(t), "tokens_per_s": t.tokens_per_s} for t in timings]
    print(json.dumps({"threads": threads, "rows": rows, "new_tokens": NEW_TOKENS, "runs": figures}))


if __name__ == "__main__":
    sys.exit(main())
