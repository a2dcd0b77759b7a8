"""The figures as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.ppo_steps.side import PHASES

LABELS = {"ours": "rlhf-services", "trl": "TRL PPOTrainer"}


def render(figures: Mapping[str, Any]) -> str:
    """The table, a side a line, and the check below."""
    head = f"\n{'':<15} {'samples/s':>9} {'step, s':>8} {'least':>7}" + "".join(f" {phase:>8}" for phase in PHASES)
    lines = [head + f" {'memory, MiB':>12}"]
    for side, own in figures["sides"].items():
        split = "".join(f" {own['split_s'][phase]:>8.2f}" for phase in PHASES)
        lines.append(
            f"{LABELS[side]:<15} {own['samples_per_s']:>9.3f} {own['step_s']['median']:>8.2f} "
            f"{own['step_s']['min']:>7.2f}{split} {own['peak_mib']:>12,.0f}"
        )
    if figures["speedup_vs_trl"] is not None:
        lines.append(
            f"\nsamples/s: {figures['speedup_vs_trl']:.2f} × TRL's; memory: {figures['peak_memory_ratio']:.2f} of TRL's"
        )
    if (checked := figures["first_step"]) is not None:
        losses = ", ".join(f"{side} {checked[side]['policy_loss']:+.5f}" for side in ("ours", "trl"))
        kls = ", ".join(f"{side} {checked[side]['kl']:.5f}" for side in ("ours", "trl"))
        verdict = "they agree" if checked["agree"] else "THEY DIFFER"
        lines.append(f"first step on the same batch: policy loss {losses}; KL {kls}: {verdict}")
    return "\n".join(lines)
