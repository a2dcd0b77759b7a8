"""Builds the demo's data: `python -m rlhf.demo.build_data --model DIR --out DIR --seed N`.

Writes prompts.jsonl and pairs.jsonl. Sampling takes about a quarter of an hour on two CPU cores and depends on the
machine's arithmetic as well as on the seed; scoring and choosing pairs takes seconds and depends on the samples and the
seed only. `--samples FILE` keeps the sampled responses, so that a changed rubric can be tried without sampling again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf.demo.pairs import ScoredResponse, choose_pairs, measure_pairs
from rlhf.demo.prompts import Prompt, make_prompts
from rlhf.demo.rubric import score
from rlhf.evaluation.text_metrics import is_finished


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the demo's prompts and preference pairs.")
    parser.add_argument("--model", type=Path, help="directory of the model to sample; not needed with saved samples")
    parser.add_argument("--out", type=Path, required=True, help="directory that receives prompts.jsonl and pairs.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling and of the choice of pairs")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="dtype of the weights")
    parser.add_argument("--batch-size", type=int, default=96, help="prompts a batch; part of what the draws depend on")
    parser.add_argument("--samples", type=Path, help="file of the sampled responses: read if it exists, else written")
    args = parser.parse_args(argv)

    prompts = make_prompts()
    if args.samples and args.samples.exists():
        samples = [json.loads(line) for line in args.samples.read_text("utf-8").splitlines()]
    elif args.model:
        samples = _sample(args.model, prompts, seed=args.seed, dtype=args.dtype, batch_size=args.batch_size)
        if args.samples:
            _write_lines(args.samples, samples)
    else:
        parser.error("give --model to sample from, or --samples with a file of sampled responses")

    text_of = {prompt.id: prompt.prompt for prompt in prompts}
    responses: dict[str, list[ScoredResponse]] = defaultdict(list)
    for sample in samples:
        total = score(text_of[sample["prompt_id"]], sample["response"]).total
        responses[sample["prompt_id"]].append(ScoredResponse(sample["response"], total))
    pairs = choose_pairs(prompts, responses, seed=args.seed)

    args.out.mkdir(parents=True, exist_ok=True)
    _write_lines(args.out / "prompts.jsonl", (asdict(prompt) for prompt in prompts))
    _write_lines(args.out / "pairs.jsonl", pairs)
    _print_samples(samples, text_of)
    for split in ("train", "heldout"):
        figures = measure_pairs([row for row in pairs if row["split"] == split])
        print(f"pairs, {split:8}" + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()))


def _sample(model: Path, prompts: Sequence[Prompt], *, seed: int, dtype: str, batch_size: int) -> list[dict[str, Any]]:
    # Imported here: everything else in this package, and re-scoring saved samples, works without torch.
    import torch

    from rlhf.demo.sampling import sample_responses

    samples: list[dict[str, Any]] = []
    start = time.monotonic()
    batches = sample_responses(model, prompts, seed=seed, dtype=getattr(torch, dtype), batch_size=batch_size)
    for batch in batches:
        samples += [asdict(sample) for sample in batch]
        print(f"{time.monotonic() - start:6.0f} s  {len(samples):5} responses  {batch[0].setting}", flush=True)
    return samples


def _print_samples(samples: Sequence[Mapping[str, Any]], text_of: Mapping[str, str]) -> None:
    by_setting: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for sample in samples:
        by_setting[sample["setting"]].append(sample)
    for setting, group in by_setting.items():
        totals = [score(text_of[sample["prompt_id"]], sample["response"]).total for sample in group]
        finished = statistics.mean(is_finished(sample["response"]) for sample in group)
        print(
            f"samples, {setting:13} n {len(group):4}  score {statistics.mean(totals):.3f} "
            f"± {statistics.pstdev(totals):.3f}  finished {finished:.3f}"
        )


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
