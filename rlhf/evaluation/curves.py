"""The PPO job's curves, one value a step: which there are, how each is drawn, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from rlhf.evaluation.charts import Band, line_chart
from rlhf.evaluation.readings import items, number, section, series
from rlhf.evaluation.verdict import MOST_RATIO_ERROR, Report, kl_band


@dataclass(frozen=True)
class _Plot:
    """One curve of the PPO job: its key in report.json, and how it is drawn."""

    key: str
    title: str
    unit: str
    note: str = ""
    include: tuple[float, ...] = ()
    reference: float | None = None
    floor: float | None = None


_PLOTS = (
    _Plot("reward_mean", "Reward", "ensemble score", "Mean over samples; shaded: ± mean uncertainty between members."),
    _Plot("kl_sequence", "KL to the base model", "nats per sequence", include=(0.0,)),
    _Plot("beta", "KL weight β", "reward per nat", "How much a nat of KL costs.", include=(0.0,)),
    _Plot("uncertainty_mean", "Ensemble disagreement", "score, std over members", "", (0.0,)),
    _Plot("response_length", "Response length", "tokens", "", (0.0,)),
    _Plot("eos_rate", "Responses that end", "share", "The others hit the length limit.", (0.0, 1.0)),
    _Plot(
        "policy_loss", "Policy loss", "clipped PPO objective, negated", "Signed; its level alone says little.", (0.0,)
    ),
    _Plot("value_loss", "Value loss", "squared score", "", (0.0,)),
    _Plot(
        "explained_variance",
        "Explained variance",
        "share of the returns' variance",
        "1: the value head is right.",
        (0.0,),
        floor=-1,
    ),
    _Plot("entropy", "Entropy", "nats per token", "Falls to 0 when the policy collapses.", (0.0,)),
    _Plot("clip_fraction", "Clip fraction", "share of tokens", "Above 0.5 the updates are too large.", (0.0,)),
    _Plot(
        "ratio_first_minibatch",
        "First minibatch's ratio",
        "new / old probability",
        "1 unless masks, shifts, dropout or weights disagree.",
        reference=1.0,
    ),
    _Plot("kl_token", "KL per token", "nats per token", "", (0.0,)),
)


@dataclass(frozen=True)
class Curve:
    """One curve, drawn: `ends` tells its first and last known value, None without any."""

    key: str
    title: str
    unit: str
    note: str
    ends: str | None
    svg: Markup


def draw_curves(report: Report) -> list[Curve]:
    """Draw every curve; one without values says so in its place."""
    return [_draw(plot, report) for plot in _PLOTS]


def tabulate_steps(report: Report) -> list[list[float | None]]:
    """Return one row a step, one column a curve in the order of `draw_curves`; None where there is no value."""
    columns = [series(section(report, "ppo"), plot.key) for plot in _PLOTS]
    return [
        [column[step] if step < len(column) else None for column in columns] for step in range(max(map(len, columns)))
    ]


def _draw(plot: _Plot, report: Report) -> Curve:
    ppo = section(report, "ppo")
    values = series(ppo, plot.key)
    known = [value for value in values if value is not None]
    band, reference, note = None, plot.reference, plot.note
    if plot.key == "kl_sequence":
        low, high = kl_band(report)
        band, reference = Band(low, high, f"wanted: {low:.2g} to {high:.2g} nats"), number(ppo.get("kl_target"))
        note = f"Shaded: the wanted {low:.2g}–{high:.2g} nats" + ("; dashed: the target." if reference else ".")
    elif plot.key == "ratio_first_minibatch":
        band = Band(1 - MOST_RATIO_ERROR, 1 + MOST_RATIO_ERROR, f"within {MOST_RATIO_ERROR:g} of 1")
    notes = [note] if note else []
    if len(known) < len(values):
        notes.append(f"{len(values) - len(known)} of {len(values)} steps have no finite value.")
    if plot.floor is not None and any(value < plot.floor for value in known):
        notes.append(f"Hollow: below {plot.floor:g}.".replace("-", "−"))
    chart = line_chart(
        values,
        title=plot.title,
        unit=plot.unit,
        spread=series(ppo, "uncertainty_mean") if plot.key == "reward_mean" else (),
        band=band,
        reference=reference,
        include=plot.include,
        floor=plot.floor,
        marks=sorted({int(step) for step in map(_step_of, items(report.get("warnings"))) if step is not None}),
    )
    ends = f"{known[0]:.3g} → {known[-1]:.3g}".replace("-", "−") if known else None
    return Curve(plot.key, plot.title, plot.unit, " ".join(notes), ends, chart)


def _step_of(warning: object) -> float | None:
    return number(warning.get("step")) if isinstance(warning, Mapping) else None
