"""The runs as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.overoptimisation.design import VARIANTS

Run = Mapping[str, Any]


def render_curve(result: Mapping[str, Any]) -> str:
    """One run's points, a line each."""
    head = f"{'step':>6} {'KL':>7} {'gold':>6} {'95 %':>13} {'proxy':>7} {'± members':>9} {'ended':>6} {'rep-4':>6}"
    lines = [f"seed {result['seed']}, {VARIANTS[result['variant']].label}", head]
    for point in result["points"]:
        low, high = point["gold_ci95"]
        lines.append(
            f"{point['step']:>6} {point['kl']:>7.2f} {point['gold']:>6.3f} {low:>6.3f}-{high:<6.3f} "
            f"{point['proxy']:>+7.2f} {point['uncertainty_mean']:>9.3f} {point['eos_rate']:>6.0%} {point['rep4']:>6.3f}"
        )
    if result["stopped"]:
        lines.append(f"       stopped early: {result['stopped']}")
    return "\n".join(lines)


def render_summary(runs: Sequence[Run], variants: Mapping[str, Mapping[str, float]]) -> str:
    """Starts and ends of all runs, and their means over seeds, in Markdown."""
    lines = [
        "| variant | seed | reward model | gold | gain, 95 % | best gold (step) | proxy | KL at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        low, high = run["gold_gain_ci95"]
        lines.append(
            f"| {VARIANTS[run['variant']].label} | {run['seed']} | {run['accuracy']:.1%} "
            f"| {run['gold_start']:.3f} → {run['gold_end']:.3f} | {run['gold_gain']:+.3f} ({low:+.3f} to {high:+.3f}) "
            f"| {run['gold_best']:.3f} ({run['best_step']}) | {run['proxy_start']:+.2f} → {run['proxy_end']:+.2f} "
            f"| {run['kl_end']:.1f} |"
        )
    for name, means in variants.items():
        lines.append(
            f"| **{VARIANTS[name].label}** | mean of {means['seeds']:.0f} | {means['accuracy']:.1%} "
            f"| {means['gold_start']:.3f} → {means['gold_end']:.3f} | {means['gold_gain']:+.3f} "
            f"| {means['gold_best']:.3f} | {means['proxy_start']:+.2f} → {means['proxy_end']:+.2f} "
            f"| {means['kl_end']:.1f} |"
        )
    return "\n".join(lines)
