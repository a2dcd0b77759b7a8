"""`make bench-demo-seeds`: the demo once a seed, its claims and figures in one table.

make bench-demo-seeds ARGS="--seeds 0 1 2"           run the demo for each, then print
make bench-demo-seeds ARGS="--seeds 0 1 2 --read"    print from the reports of earlier runs
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf.evaluation.verdict import judge, kl_late

Report = Mapping[str, Any]

COLUMNS: dict[str, Callable[[Report], str]] = {
    "reward model (length)": lambda r: (
        f"{r['reward_model']['accuracy_ensemble']:.1%} ({r['reward_model']['accuracy_length_baseline']:.1%})"
    ),
    "gold": lambda r: _change(r, "gold_mean", ".3f"),
    "proxy": lambda r: _change(r, "proxy_mean", "+.2f"),
    "win rate, 95 %": lambda r: (
        f"{r['win_rate']['gold']:.3f} ({r['win_rate']['gold_ci95'][0]:.3f}–{r['win_rate']['gold_ci95'][1]:.3f})"
    ),
    "KL, last half": lambda r: f"{kl_late(r):.2f}",
    "responses that end": lambda r: _change(r, "eos_rate", ".0%"),
    "rep-4": lambda r: _change(r, "rep4", ".4f"),
    "distinct-2": lambda r: _change(r, "distinct2", ".3f"),
    "minutes": lambda r: f"{r['durations_s']['total'] / 60:.1f}",
    "MiB": lambda r: f"{r['peak_memory_mib']['total']:.0f}",
}


def main() -> int:
    """Runs what is asked for; returns 1 when a claim fails for a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="PPO steps (default: the preset's)")
    parser.add_argument("--read", action="store_true", help="only read the reports of earlier runs")
    options = parser.parse_args()
    reports = {}
    for seed in options.seeds:
        out = Path("runs") / f"demo-seed-{seed}"
        if not options.read:
            steps = [] if options.steps is None else ["--steps", str(options.steps)]
            command = [sys.executable, "-m", "rlhf.cli", "demo", "--seed", str(seed), "--out", str(out), *steps]
            if code := subprocess.run(command, check=False).returncode:
                return code  # the demo has said why
        reports[seed] = json.loads((out / "report.json").read_text())
    print("\n| seed | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for seed, report in reports.items():
        print(f"| {seed} | " + " | ".join(show(report) for show in COLUMNS.values()) + " |")
    failed = {seed: [c.text for c in judge(report) if not c.holds] for seed, report in reports.items()}
    for seed, claims in failed.items():
        print(f"seed {seed}: {'every claim holds' if not claims else 'does not hold: ' + '; '.join(claims)}")
    figures = {
        seed: {"before": _means(report["before"]), "after": _means(report["after"]), "win_rate": report["win_rate"]}
        | {"kl_last_half": kl_late(report), "failed": failed[seed], "seconds": report["durations_s"]["total"]}
        for seed, report in reports.items()
    }
    print(json.dumps(figures))
    return 1 if any(failed.values()) else 0


def _change(report: Report, key: str, form: str) -> str:
    return f"{report['before'][key]:{form}} → {report['after'][key]:{form}}"


def _means(side: Report) -> dict[str, float]:
    return {key: value for key, value in side.items() if key != "samples"}


if __name__ == "__main__":
    sys.exit(main())
