"""`make bench-adapter-load`: what a request for a new adapter costs those that run.

Eight responses of the base model are being generated; a ninth request names an adapter that is not in memory, in all
layers of SmolLM2. Told are the time between two tokens of the eight before, while it is read, verified and merged, and
while it decodes beside them, and the longest gap in decode steps.

make bench-adapter-load ARGS="--repeats 5"
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, TOKENS = 8, 160


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder, Llama family; default: SmolLM2-135M-Instruct")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    from benchmarks.soaking.adapters import write_adapter
    from rlhf.artifacts.store import ArtifactStore
    from rlhf.local.weights import ensure_smollm2
    from services.policy.loading import load_engine
    from services.policy.settings import PolicySettings

    model = options.model or str(ensure_smollm2())
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder))
        for version in range(1, options.repeats + 1):
            store.publish("adapters", "bench", version, lambda to, seed=version: write_adapter(model, to, seed))
        engine = load_engine(PolicySettings(model=model), store)
        engine.start()
        runs = [measure(engine, f"bench@{version}") for version in range(1, options.repeats + 1)]
        engine.stop()
    report(runs)
    return 0


def measure(engine: Any, ref: str) -> dict[str, float]:
    """Seconds: steps before, during and after the adapter is loaded, the longest of them, and the time it took."""
    from rlhf.contracts.policy import SamplingParams

    prompt = [1, 2, 3, 4, 5, 6, 7, 8]
    ticks: list[float] = []
    sampling = SamplingParams(max_new_tokens=TOKENS, min_new_tokens=TOKENS, n=ROWS, seed=1)
    running = engine.submit([prompt], sampling, progressed=lambda: ticks.append(time.perf_counter()))
    while len(ticks) < TOKENS // 4:
        time.sleep(0.005)
    asked = time.perf_counter()
    other = engine.submit([prompt], SamplingParams(max_new_tokens=16, min_new_tokens=16, seed=1), ref)
    while ref not in engine.adapters:
        time.sleep(0.001)
    loaded = time.perf_counter()
    other.outcome.result()
    done = time.perf_counter()
    running.outcome.result()
    gaps = [(a, b - a) for a, b in itertools.pairwise(ticks)]
    during = [gap for at, gap in gaps if asked - gap < at < loaded]
    return {
        "step_before": statistics.median(gap for at, gap in gaps if at < asked),
        "loading": loaded - asked,
        "step_during": statistics.median(during),
        "longest_during": max(during),
        "step_beside": statistics.median(gap for at, gap in gaps if loaded < at < done),
    }


def report(runs: list[dict[str, float]]) -> None:
    """The table, and the same as JSON on the last line. Milliseconds."""
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    stall = statistics.median((run["longest_during"] - run["step_before"]) / run["step_before"] for run in runs)
    print(f"\n{ROWS} responses of the base model run; {len(runs)} adapters in all layers are named in turn\n")
    for name, value in median.items():
        print(f"{name:<16} {1e3 * value:8.1f} ms")
    print(f"longest stall    {stall:8.2f} decode steps (median of the runs)")
    figures = {f"{name}_ms": 1e3 * value for name, value in median.items()}
    print(json.dumps({"runs": len(runs), **figures, "stall_steps": stall}))


if __name__ == "__main__":
    sys.exit(main())
