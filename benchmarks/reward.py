"""`make bench-reward`: what K=5 members cost beside one, on the same trunk, and beside five models in turn.

64 exchanges of about 128 tokens are scored by every kind of ensemble; the rounds alternate their order and the best
round of each counts. Weights are random: they do not change the time.

    one model   the trunk with one member
    naive       five such models in turn, with the weights of the five members: each runs the trunk anew
    ours        the trunk once, five members on it
    full depth  a member on all layers of the backbone, as a sequence-classification head has it

The scores of naive and ours are compared: they must agree to 1e-4 of a standard deviation.

make bench-reward ARGS="--rounds 5"
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

MEMBERS, EXCHANGES, TOKENS, TOKEN_BUDGET = 5, 64, 128, 4096
TOLERANCE = 1e-4


def main() -> int:
    """Measures and prints; returns 1 when the scores disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    import torch

    from rlhf.lm.layers import LayerStack
    from rlhf.lm.loading import load_language_model
    from rlhf.local.machine import physical_cores
    from rlhf.local.weights import ensure_smollm2

    torch.set_num_threads(physical_cores())
    base = load_language_model(options.model or str(ensure_smollm2()))
    depth = LayerStack(base.model).depth
    exchanges = make_exchanges(base)
    ours = make_ensemble(base, MEMBERS, depth // 2)
    singles = [member_of(base, ours, index) for index in range(MEMBERS)]
    full = make_ensemble(base, 1, depth)
    contenders: dict[str, Callable[[], Any]] = {
        "one model": lambda: singles[0].score(exchanges, token_budget=TOKEN_BUDGET),
        "naive": lambda: torch.cat([each.score(exchanges, token_budget=TOKEN_BUDGET) for each in singles], dim=1),
        "ours": lambda: ours.score(exchanges, token_budget=TOKEN_BUDGET),
        "full depth": lambda: full.score(exchanges, token_budget=TOKEN_BUDGET),
    }
    worst = float((contenders["naive"]() - contenders["ours"]()).abs().max())
    seconds = fastest(contenders, options.rounds)
    return report(seconds, worst)


def make_exchanges(base: Any) -> list[Any]:
    """Prompts of the demo, each with preferred responses one after the other until 128 tokens are full."""
    from rlhf.contracts.base import Message
    from rlhf.demo.dataset import load_pairs
    from rlhf.lm.exchanges import Exchange, encode_exchange

    rows = load_pairs()
    made: list[Exchange | None] = []
    apart = len(rows) // EXCHANGES  # no two with one prompt, which would be computed once for both
    for index in range(0, apart * EXCHANGES, apart):
        prompt = [Message(**turn) for turn in rows[index]["prompt"]]
        text, exchange = "", None
        for row in rows[index:]:
            text += row["chosen"][0]["content"] + " "
            exchange = encode_exchange(base.tokenizer, prompt, text, max_length=1024)
            if exchange.tokens >= TOKENS:
                break
        made.append(exchange)
    return made


def make_ensemble(base: Any, members: int, layers: int) -> Any:
    """An ensemble with random adapters, so that members differ."""
    import torch

    from rlhf.lm.ensemble import EnsembleShape, RewardEnsemble

    shape = EnsembleShape(
        backbone=base.name,
        width=int(base.model.config.hidden_size),
        trunk_layers=layers,
        member_layers=1,
        members=members,
        lora_r=8,
        max_length=1024,
    )
    ensemble = RewardEnsemble(base, shape).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for adapter in ensemble.adapters.values():
        adapter.up.copy_(0.02 * torch.randn(adapter.up.shape, generator=generator))
    return ensemble


def member_of(base: Any, ensemble: Any, index: int) -> Any:
    """One member as an ensemble of its own."""
    single = make_ensemble(base, 1, ensemble.shape.trunk_layers)
    own = {
        name: tensor if name.startswith(("feature_", "usual")) else tensor[index : index + 1]
        for name, tensor in ensemble.state_dict().items()
    }
    single.load_state_dict(own)
    return single


def fastest(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of the best round of each."""
    names = list(contenders)
    best = dict.fromkeys(names, float("inf"))
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            started = time.perf_counter()
            contenders[name]()
            best[name] = min(best[name], time.perf_counter() - started)
            print(f"round {turn + 1}: {name}", file=sys.stderr)
    return best


def report(seconds: dict[str, float], worst: float) -> int:
    """The table, and the same as JSON on the last line."""
    rates = {name: EXCHANGES / value for name, value in seconds.items()}
    print(f"\n{EXCHANGES} exchanges of about {TOKENS} tokens, K = {MEMBERS}\n")
    for name, rate in rates.items():
        print(f"{name:<12} {rate:7.1f} exchanges/s   {rates['one model'] / rate:5.2f} × the time of one model")
    print(f"\nscores of ours and naive differ by at most {worst:.1e} standard deviations")
    figures = {
        "one_model_seq_per_s": rates["one model"],
        "naive_seq_per_s": rates["naive"],
        "ours_seq_per_s": rates["ours"],
        "full_depth_seq_per_s": rates["full depth"],
        "ensemble_cost_ratio": rates["one model"] / rates["ours"],
        "worst_difference": worst,
    }
    print(json.dumps(figures))
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
