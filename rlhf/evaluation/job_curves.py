"""A job's curves as inline SVG, from the rows of its metrics. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rlhf.contracts.jobs import JobEvent, JobKind
from rlhf.evaluation.charts import Values, line_chart

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Plot:
    """What to draw.

    Attributes:
        key: of the metric.
        title: for people.
        unit: of the y axis.
        note: what to know of it.
        spread: metric that is drawn as ± around the line.
        reference: metric whose last value is a dashed line.
        include: values that the y axis covers in any case.
    """

    key: str
    title: str
    unit: str
    note: str = ""
    spread: str | None = None
    reference: str | None = None
    include: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class Curve:
    """One curve, drawn. `ends`: its first and last value."""

    key: str
    title: str
    note: str
    ends: str
    svg: Markup


PPO = (
    Plot(
        "reward_mean",
        "Reward",
        "ensemble score",
        "Mean over samples; shaded: ± mean uncertainty between members.",
        spread="uncertainty_mean",
        include=(),
    ),
    Plot(
        "kl_sequence",
        "KL to the base model",
        "nats per sequence",
        "Dashed: the controller's target.",
        None,
        "kl_target",
    ),
    Plot("uncertainty_mean", "Uncertainty", "score, std over members", "How far the ensemble's members disagree."),
    Plot("rep4", "Repetition", "share of 4-grams", "Word 4-grams that repeat an earlier one.", include=(0.0, 0.1)),
    Plot("response_length", "Response length", "tokens"),
    Plot("entropy", "Entropy", "nats per token", "Falls to 0 when the policy collapses."),
    Plot("clip_fraction", "Clip fraction", "share of tokens", "Above 0.5 the updates are too large."),
    Plot("eos_rate", "Responses that end", "share", "The others hit the length limit.", include=(0.0, 1.0)),
    Plot("beta", "KL weight β", "reward per nat", "How much a nat of KL costs."),
)
REWARD_MODEL = (
    Plot("loss", "Training loss", "nats per pair"),
    Plot(
        "validation_loss",
        "Validation loss",
        "nats per pair",
        "On pairs new to the members, once an epoch; the best epoch is kept.",
    ),
    Plot("validation_accuracy", "Validation accuracy", "share of pairs", "Of the same pairs.", include=(0.5, 1.0)),
)
_PLOTS: dict[JobKind, tuple[Sequence[Plot], str]] = {
    "ppo": (PPO, "PPO step"),
    "reward_model": (REWARD_MODEL, "step"),
    "evaluation": ((), "step"),
}


def draw(kind: JobKind, rows: Rows, events: Sequence[JobEvent]) -> list[Curve]:
    """The curves that have a value; where a watchdog began to warn is marked.

    Args:
        kind: of the job.
        rows: one a step.
        events: of the job.
    """
    plots, steps = _PLOTS[kind]
    place = {row.get("step"): index for index, row in enumerate(rows)}
    found = {(event.name, place[event.data["step"]]) for event in events if _of_a_step(event, place)}
    # One that warns at each of a thousand steps would hide the curve behind a thousand lines.
    alarms = {index for name, index in found if (name, index - 1) not in found}
    return [_draw(plot, rows, sorted(alarms), steps) for plot in plots if _known(_column(rows, plot.key))]


def _draw(plot: Plot, rows: Rows, alarms: Sequence[int], steps: str) -> Curve:
    values = _column(rows, plot.key)
    known = _known(values)
    targets = [] if plot.reference is None else _known(_column(rows, plot.reference))
    svg = line_chart(
        values,
        title=plot.title,
        unit=plot.unit,
        spread=() if plot.spread is None else _column(rows, plot.spread),
        reference=targets[-1] if targets else None,
        include=plot.include,
        marks=alarms,
        steps=steps,
    )
    ends = f"{known[0]:.3g} → {known[-1]:.3g}".replace("-", "−")
    return Curve(plot.key, plot.title, plot.note, ends, svg)


def _column(rows: Rows, key: str) -> Values:
    found = (row.get(key) for row in rows)
    return [float(value) if isinstance(value, int | float) else None for value in found]


def _known(values: Values) -> list[float]:
    return [value for value in values if value is not None]


def _of_a_step(event: JobEvent, place: dict[Any, int]) -> bool:
    step = event.data.get("step")
    return event.kind == "watchdog" and isinstance(step, int) and step in place
