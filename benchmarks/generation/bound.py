"""The matrix multiplies alone of one decode step: tokens/s that no engine with these kernels exceeds. Prints JSON.

Every layer's own weights are streamed through, the output layer's too, as a step does; attention, norms, sampling and
HTTP cost nothing here. The bound is the fastest of torch's plain layout and oneDNN's packed one, each with the
projections that read the same input apart, and joined into one matrix.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SECONDS = 3.0


def main() -> int:
    """Measures and prints tokens/s by number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each kind of kernel, for each row count")
    options = parser.parse_args()
    import torch

    found: dict[int, dict[str, float]] = {rows: {} for rows in options.rows}
    for joined in (False, True):
        weights = read_weights(options.model, joined=joined)
        for layout in ("plain", "packed"):
            step = make_step(weights, layout)
            for rows in options.rows:
                with torch.inference_mode():
                    name = f"{layout}, {'joined' if joined else 'apart'}"
                    found[rows][name] = rows / fastest(step, rows, options.seconds)
    print(json.dumps(found))
    return 0


def read_weights(model: str, *, joined: bool) -> list[Any]:
    """Weights of every linear layer, [out, in] each, in the order of a step, each at its own place in memory."""
    import torch
    from torch import nn

    from rlhf.lm.loading import load_language_model

    linears = [(n, m.weight) for n, m in load_language_model(model).model.named_modules() if isinstance(m, nn.Linear)]
    if not joined:
        return [weight.clone() for _, weight in linears]
    groups: dict[str, list[Any]] = {}
    for name, weight in linears:
        parent, _, leaf = name.rpartition(".")
        group = next((f"{parent}.{'+'.join(names)}" for names in JOINED if leaf in names), name)
        groups.setdefault(group, []).append(weight)
    return [torch.cat(parts) for parts in groups.values()]


def make_step(weights: list[Any], layout: str) -> Callable[[int], None]:
    """A function that multiplies so many rows with every weight in turn."""
    import torch
    from torch.nn import functional as F

    kernels = torch.ops.mkldnn
    kept = weights if layout == "plain" else [kernels._reorder_linear_weight(weight, 32) for weight in weights]
    widths = [weight.shape[1] for weight in weights]

    def step(rows: int) -> None:
        inputs = {width: torch.ones(rows, width) for width in set(widths)}
        for weight, width in zip(kept, widths, strict=True):
            if layout == "plain":
                F.linear(inputs[width], weight)
            else:
                kernels._linear_pointwise(inputs[width], weight, None, "none", [], "")

    return step


def fastest(step: Callable[[int], None], rows: int, seconds: float) -> float:
    """Seconds of the fastest step within some time; other programs only ever make one slower."""
    best, until = float("inf"), time.perf_counter() + seconds
    step(rows)
    while (started := time.perf_counter()) < until:
        step(rows)
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    sys.exit(main())
