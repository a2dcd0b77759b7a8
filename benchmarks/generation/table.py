"""What everyone did, as a table and as one JSON object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.generation.contenders import FAMILIES, LABELS, OURS
from benchmarks.generation.work import PENALTY, Timing
from rlhf.local.machine import physical_cores


@dataclass
class Outcome:
    """The best round of each, by number of clients.

    Attributes:
        clients: numbers of clients, in order.
        tokens: of every response.
        missing: why a contender has no timings.
        failed: those that are there and could not do the work.
        best: by contender, then number of clients.
        bounds: tokens/s by number of clients, then kind of kernel.
    """

    clients: list[int]
    tokens: int
    missing: dict[str, str]
    failed: set[str] = field(default_factory=set)
    best: dict[str, dict[int, Timing]] = field(default_factory=dict)
    bounds: dict[int, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, timings: list[Timing]) -> None:
        """One round of a contender."""
        held = self.best.setdefault(name, {})
        for timing in timings:
            if timing.clients not in held or timing.tokens_per_s > held[timing.clients].tokens_per_s:
                held[timing.clients] = timing

    def add_bound(self, found: dict[int, dict[str, float]]) -> None:
        """One round of the bound."""
        for clients, by_kernel in found.items():
            held = self.bounds.setdefault(clients, {})
            for kernel, rate in by_kernel.items():
                held[kernel] = max(rate, held.get(kernel, 0.0))

    def fail(self, name: str, reason: str) -> None:
        """A contender could not do the work; what it did in an earlier round does not count."""
        self.failed.add(name)
        self.best.pop(name, None)
        self.missing[name] = f"failed: {reason}"

    def rate(self, name: str, clients: int) -> float | None:
        """Tokens/s of a contender, of the best variant of a project, or of the bound."""
        if name == "gemm_bound":
            return max(self.bounds.get(clients, {}).values(), default=None)
        runs = [self.best[n][clients] for n in FAMILIES.get(name, (name,)) if clients in self.best.get(n, {})]
        return max((timing.tokens_per_s for timing in runs), default=None)


def report(outcome: Outcome) -> dict[str, Any]:
    """Prints the table. Returns the figures."""
    print(
        f"\nprompts of the demo, greedy, repetition penalty {PENALTY}, {outcome.tokens} tokens a response, float32, "
        f"{physical_cores()} threads; the best round of each"
    )
    for clients in outcome.clients:
        _print_one(outcome, clients)
    figures: dict[str, Any] = {
        str(clients): {name: outcome.rate(name, clients) for name in (OURS, *FAMILIES, "gemm_bound")}
        for clients in outcome.clients
    }
    peers = [max((row[name] for name in FAMILIES if row[name] is not None), default=None) for row in figures.values()]
    return {
        "clients": figures,
        "ratio_vs_best_peer": _worst([row[OURS] for row in figures.values()], peers),
        "ratio_vs_gemm_bound": _worst(*([row[name] for row in figures.values()] for name in (OURS, "gemm_bound"))),
        "missing": {name: reason for name, reason in outcome.missing.items() if name not in outcome.best},
    }


def _print_one(outcome: Outcome, clients: int) -> None:
    head = f"{'tokens/s':>9} {'p50 s':>7} {'p95 s':>7} {'first token s':>14} {'same text':>10}"
    who = f"{clients} {'client' if clients == 1 else 'clients'}"
    print(f"\n{who:<50} {head}")
    reference = outcome.best.get("transformers", {}).get(clients)
    for name, label in LABELS.items():
        timing = outcome.best.get(name, {}).get(clients)
        if timing is None:
            print(f"  {label:<48} {outcome.missing[name]}")
            continue
        first = "n/a" if timing.first_token is None else f"{timing.first_token:.2f}"
        same = "n/a" if reference is None else f"{_share_of_same(timing, reference):.0%}"
        print(f"  {label:<48} {timing.tokens_per_s:>8.1f} {timing.p50:>7.2f} {timing.p95:>7.2f} {first:>14} {same:>10}")
    rate = outcome.rate("gemm_bound", clients)
    kernel = max(outcome.bounds[clients], key=lambda name: outcome.bounds[clients][name])
    print(f"  {'bound: matrix multiplies alone':<48} {rate:>8.1f}   {kernel}")


def _share_of_same(timing: Timing, reference: Timing) -> float:
    pairs = list(zip(timing.texts, reference.texts, strict=True))
    return sum(one.strip() == other.strip() for one, other in pairs) / len(pairs)


def _worst(ours: list[float | None], theirs: list[float | None]) -> float | None:
    """The smallest of the ratios; None where there is nothing to compare with."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True) if one is not None and other is not None]
    return min(ratios, default=None)
