"""The plot: gold and proxy reward against KL, one line a run, as one SVG that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from benchmarks.overoptimisation.design import VARIANTS
from rlhf.evaluation.charts import label, nice_ticks

Result = Mapping[str, Any]

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 56, 16, 34, 44
LEGEND_ROW = 20
LEGEND = 26 + LEGEND_ROW
COLOURS = {"single": "#b3261e", "mean": "#1f5fd0", "penalised": "#17703f"}
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "1 4")
"""By seed, in order; a sixth begins again."""
STYLE = """
text { font: 12px system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; fill: #17202b; }
.title { font-weight: 600; font-size: 13px; }
.tick { fill: #556170; }
.x { text-anchor: middle; }
.y { text-anchor: end; }
.grid { stroke: #e7ebf0; }
.run { fill: none; stroke-width: 2; stroke-linejoin: round; }
.interval { stroke-opacity: .35; }
"""


@dataclass(frozen=True)
class _Axes:
    """Maps KL and a reward to positions in one panel."""

    top: float
    kls: list[float]
    rewards: list[float]

    def x(self, kl: float) -> float:
        low, high = self.kls[0], self.kls[-1]
        return LEFT + (kl - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, reward: float) -> float:
        low, high = self.rewards[0], self.rewards[-1]
        return self.top + PANEL - BOTTOM - (reward - low) / (high - low) * (PANEL - TOP - BOTTOM)


def draw_curves(results: Sequence[Result]) -> str:
    """The SVG's text. Args: results, of at least one run."""
    parts = [
        *_panel(results, LEGEND, "Gold reward: the rubric, which PPO never sees", "gold"),
        *_panel(results, LEGEND + PANEL, "Proxy reward: what PPO maximises, in standard deviations", "proxy"),
        *_legend(results),
    ]
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
            'aria-label="Gold and proxy reward against KL, {n} runs"><style>{style}</style>'
            '<rect width="{w}" height="{h}" fill="#ffffff"/>{parts}</svg>\n'
        ).format(w=WIDTH, h=LEGEND + 2 * PANEL, n=len(results), style=Markup(STYLE), parts=Markup("").join(parts))
    )


def _panel(results: Sequence[Result], top: float, title: str, key: str) -> Iterator[Markup]:
    points = [point for result in results for point in result["points"]]
    reach = [bound for point in points for bound in point[f"{key}_ci95"]]
    kls = nice_ticks(0.0, max(point["kl"] for point in points), 8)
    axes = _Axes(top, kls, nice_ticks(min(reach), max(reach)))
    yield _text("title", LEFT, top + 16, title)
    yield from _grid(axes)
    seeds = sorted({result["seed"] for result in results})
    for result in results:
        yield from _run(result, axes, key, DASHES[seeds.index(result["seed"]) % len(DASHES)])


def _grid(axes: _Axes) -> Iterator[Markup]:
    bottom = axes.y(axes.rewards[0])
    for ticks, at in ((axes.rewards, axes.y), (axes.kls, axes.x)):
        yield from _ticks(ticks, at, bottom, vertical=ticks is axes.kls, top=axes.y(axes.rewards[-1]))
    yield _text("x tick", (LEFT + WIDTH - RIGHT) / 2, bottom + 34, "KL to the base model, nats per sequence")


def _ticks(
    ticks: list[float], at: Callable[[float], float], bottom: float, *, vertical: bool, top: float
) -> Iterator[Markup]:
    for tick in ticks:
        text = label(tick, ticks[1] - ticks[0])
        if vertical:
            yield _line("grid", at(tick), top, at(tick), bottom)
            yield _text("x tick", at(tick), bottom + 16, text)
        else:
            yield _line("grid", LEFT, at(tick), WIDTH - RIGHT, at(tick))
            yield _text("y tick", LEFT - 6, at(tick) + 4, text)


def _run(result: Result, axes: _Axes, key: str, dash: str) -> Iterator[Markup]:
    colour, name = COLOURS[result["variant"]], VARIANTS[result["variant"]].label
    places = " ".join(f"{axes.x(point['kl']):.1f},{axes.y(point[key]):.1f}" for point in result["points"])
    yield Markup('<polyline class="run" stroke="{}" stroke-dasharray="{}" points="{}"/>').format(colour, dash, places)
    for point in result["points"]:
        x, (low, high) = axes.x(point["kl"]), point[f"{key}_ci95"]
        yield Markup('<line class="interval" stroke="{}" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
            colour, axes.y(low), axes.y(high), x=x
        )
        yield Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"><title>{}</title></circle>').format(
            x,
            axes.y(point[key]),
            colour,
            f"{name}, seed {result['seed']}, step {point['step']}: {key} {point[key]:.3f} "
            f"({low:.3f} to {high:.3f}) at {point['kl']:.2f} nats",
        )


def _legend(results: Sequence[Result]) -> Iterator[Markup]:
    """Two rows: colours, and dashes."""
    seeds = sorted({result["seed"] for result in results})
    variants = [(VARIANTS[name].label, COLOURS[name], "none") for name in dict.fromkeys(r["variant"] for r in results)]
    dashes = [(f"seed {seed}", "#556170", DASHES[i % len(DASHES)]) for i, seed in enumerate(seeds)]
    for row, entries in enumerate((variants, dashes)):
        x, y = float(LEFT), 16 + LEGEND_ROW * row
        for text, colour, dash in entries:
            yield Markup(
                '<line class="run" stroke="{}" stroke-dasharray="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
            ).format(colour, dash, x, x + 24, y, y)
            yield _text("", x + 29, y + 4, text)
            x += 45 + 6.4 * len(text)


def _line(name: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def _text(name: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(name, x, y, text)
