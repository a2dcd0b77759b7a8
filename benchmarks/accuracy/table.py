"""The table: a row for each data set, size and trainer, over its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.accuracy.cells import Cell

Figures = dict[str, Any]
Done = Sequence[tuple[Cell, Figures]]


def quartile_gap(figures: Figures) -> float:
    """Accuracy of the most certain quarter of the pairs minus that of the least certain."""
    quarters = figures["accuracy_by_uncertainty_quartile"]
    return float(quarters[0] - quarters[-1])


def _degenerate(signal: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.get("degenerate", {}).get(f"auroc_{signal}", {}).get("all")


COLUMNS: dict[str, Callable[[Figures], float | None]] = {
    "train_pairs": lambda figures: figures["train_pairs"],
    "eval_pairs": lambda figures: figures["eval_pairs"],
    "accuracy": lambda figures: figures["accuracy_ensemble"],
    "accuracy_low": lambda figures: figures["accuracy_ensemble_ci95"][0],
    "accuracy_high": lambda figures: figures["accuracy_ensemble_ci95"][1],
    "length_baseline": lambda figures: figures.get("accuracy_length_baseline"),
    "ece_before": lambda figures: figures["ece_before_temperature"],
    "ece": lambda figures: figures["ece"],
    "auroc_uncertainty": lambda figures: figures["auroc_uncertainty"],
    "quartile_gap": quartile_gap,
    "auroc_novelty": _degenerate("novelty"),
    "auroc_deviation": _degenerate("uncertainty"),
    "seconds": lambda figures: figures["seconds"],
    "peak_mib": lambda figures: figures["peak_mib"],
}


def summarise(done: Done) -> list[dict[str, Any]]:
    """Means over seeds; None where a trainer has no such figure. The bounds are means of the seeds' own intervals."""
    groups: dict[tuple[str, int, str], list[Figures]] = defaultdict(list)
    for cell, figures in done:
        groups[cell.data, cell.size, cell.who].append(figures)
    rows = []
    for (data, size, who), group in groups.items():
        values = {name: [of(figures) for figures in group] for name, of in COLUMNS.items()}
        means = {name: None if None in known else fmean(known) for name, known in values.items()}
        rows.append({"data": data, "size": size, "who": who, "seeds": len(group), **means})
    return rows


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The table as text."""
    head = f"{'data':<18} {'size':>5} {'who':<5} {'seeds':>5} {'train':>6} {'accuracy':>8} {'95 %':>12} {'length':>7}"
    head += f" {'ECE':>13} {'mistakes':>8} {'gap':>6} {'novelty':>7} {'std':>5} {'s':>7} {'MiB':>6}"
    lines = [head]
    for row in rows:
        interval = f"{_percent(row['accuracy_low'])}-{_percent(row['accuracy_high'])}"
        lines.append(
            f"{row['data']:<18} {row['size']:>5} {row['who']:<5} {row['seeds']:>5} {row['train_pairs']:>6.0f} "
            f"{_percent(row['accuracy']):>8} {interval:>12} {_percent(row['length_baseline']):>7} "
            f"{row['ece_before']:>5.3f} → {row['ece']:.3f} {_share(row['auroc_uncertainty']):>8} "
            f"{100 * row['quartile_gap']:>6.1f} {_share(row['auroc_novelty']):>7} {_share(row['auroc_deviation']):>5} "
            f"{row['seconds']:>7.0f} {row['peak_mib']:>6.0f}"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
