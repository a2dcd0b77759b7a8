"""What a reward model is worth, as the tables of a report. Pure functions of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluation.formats import show_count, show_number, show_share
from rlhf.evaluation.job_report.records import RewardModelRecords
from rlhf.evaluation.readings import interval, number, section, series
from rlhf.evaluation.tables import accuracies, bars

_SIGNALS = (
    ("auroc_novelty", "novelty"),
    ("auroc_uncertainty", "deviation between members"),
    ("auroc_low_score", "low score"),
)
_QUARTERS = ("most certain quarter", "second quarter", "third quarter", "least certain quarter")


def tell_reward_model(records: RewardModelRecords) -> dict[str, Any]:
    """Everything that a report shows of a reward model; `figures` is None where they are not there."""
    told: dict[str, Any] = {"job": records.job, "card": records.card, "figures": None}
    if records.figures is None:
        return told
    figures, shape = records.figures, section(records.figures, "shape")
    ends = interval(figures, "accuracy_ensemble_ci95")
    return told | {
        "figures": accuracies(figures),
        "ends": ends,
        "made": [
            ("backbone", str(shape.get("backbone", "–"))),
            ("layers used", str(shape.get("trunk_layers", "–"))),
            ("of them adapted by each member", str(shape.get("member_layers", "–"))),
            ("rank", str(shape.get("lora_r", "–"))),
            ("epochs", show_count(figures.get("epochs"))),
            ("the best, which was kept", show_count(figures.get("best_epoch"))),
        ],
        "calibration": [
            ("expected calibration error", show_number(figures.get("ece"))),
            ("without the temperature", show_number(figures.get("ece_before_temperature"))),
            ("temperature", show_number(figures.get("temperature"))),
            ("loss, nats per pair", show_number(figures.get("nll"))),
            ("AUROC of mistakes: uncertainty", show_number(figures.get("auroc_uncertainty"))),
            ("AUROC of mistakes: disagreement", show_number(figures.get("auroc_disagreement"))),
            ("AUROC of mistakes: close votes", show_number(figures.get("auroc_closeness"))),
        ],
        "quarters": bars(zip(_QUARTERS, series(figures, "accuracy_by_uncertainty_quartile"), strict=False)),
        "degenerate": _degenerate(section(figures, "degenerate")),
        "interval": "" if ends is None else f"95% interval {show_share(ends[0])} to {show_share(ends[1])}",
    }


def _degenerate(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """AUROC of each signal that tells spoilt responses from preferred ones, over all and by the kind of damage."""
    kinds = list(section(told, "texts"))
    rows = [(name, [number(section(told, key).get(kind)) for kind in ("all", *kinds)]) for key, name in _SIGNALS]
    told_of = any(value is not None for _, values in rows for value in values)
    return {"kinds": ["all", *kinds], "rows": rows} if told_of else None
