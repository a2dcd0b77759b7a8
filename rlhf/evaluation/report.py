"""Writes report.json's content as one HTML page that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rlhf.evaluation.charts import interval_bar, share_bar
from rlhf.evaluation.curves import draw_curves, tabulate_steps
from rlhf.evaluation.readings import interval, items, missing_keys, number, section, series
from rlhf.evaluation.text_metrics import repeated_spans
from rlhf.evaluation.verdict import Report, conclude, judge, kl_band, kl_late

SHOWN_PROMPTS = 10
REPEATED_WORDS = 4  # rep-4's n: what the table counts is what the samples mark

Sample = Mapping[str, Any]


# key, name, unit, what is better: 1 more, -1 less, 0 neither (less variety is wrong only when the checks say so)
_COMPARED = (
    ("gold_mean", "Gold reward", "rubric score", 1),
    ("proxy_mean", "Learned reward", "ensemble score", 1),
    ("uncertainty_mean", "Ensemble disagreement", "score, std over members", -1),
    ("rep4", "Repetition (rep-4)", "share of 4-grams", -1),
    ("distinct2", "Variety (distinct-2)", "share of 2-grams", 0),
    ("eos_rate", "Responses that end by themselves", "share", 1),
    ("length_mean", "Response length", "tokens", 0),
)


def write_report(report: Report, path: Path) -> None:
    """Render a report as one self-contained HTML page.

    Absent keys, empty series and values that are not finite are shown as missing. Every text is escaped, and the page's
    content policy forbids scripts and requests.

    Args:
        report: The content of report.json.
        path: The page to write; its folder is made. A reader never sees half a page.

    Raises:
        OSError: The page cannot be written.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = show_number
    environment.filters["share"] = show_share
    page = environment.get_template("report.html.j2").render(_view(report))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def show_number(value: object, digits: int = 3) -> str:
    """Write a number for a table; a dash for anything that is not a finite number."""
    known = number(value)
    if known is None:
        return "–"
    if abs(known) >= 10:
        digits = min(digits, 1)
    plain = f"{known:,.{digits}f}" if known == 0 or 10**-digits <= abs(known) < 1e6 else f"{known:.{digits}g}"
    return plain.replace("-", "−")


def show_share(value: object) -> str:
    """Write a share in per cent; a dash for anything that is not a finite number."""
    known = number(value)
    return "–" if known is None else f"{known * 100:.1f}%"


def mark_repeats(text: str) -> Markup:
    """Escape a response and wrap the 4-grams that occur in it more than once in `<mark>`."""
    parts, end = [], 0
    for start, stop in repeated_spans(text, REPEATED_WORDS):
        parts += [Markup("{}<mark>{}</mark>").format(text[end:start], text[start:stop])]
        end = stop
    return Markup("").join([*parts, text[end:]])


def _view(report: Report) -> dict[str, Any]:
    """Everything that the template shows."""
    pairs = _paired_samples(report)
    return {
        "verdict": conclude(report),
        "tiles": _tiles(report),
        "claims": judge(report),
        "missing": missing_keys(report),
        "reward_model": _reward_model(section(report, "reward_model")),
        "ppo": {key: number(section(report, "ppo").get(key)) for key in ("steps", "samples", "tokens")},
        "curves": draw_curves(report),
        "steps": tabulate_steps(report),
        "compared": _compare(section(report, "before"), section(report, "after")),
        "win": _win_rate(section(report, "win_rate")),
        "pairs": _pairs(pairs),
        "n_pairs": len(pairs),
        "repeated_words": REPEATED_WORDS,
        "warnings": None if report.get("warnings") is None else [_event(each) for each in items(report["warnings"])],
        "durations": _durations(section(report, "durations_s")),
        "memory": _facts(report.get("peak_memory_mib")),
        "seeds": _facts(report.get("seeds")),
        "versions": _facts(report.get("versions")),
    }


def _tiles(report: Report) -> list[dict[str, str]]:
    """The five figures that matter most."""
    before, after = section(report, "before"), section(report, "after")
    win, reward_model = section(report, "win_rate"), section(report, "reward_model")
    ends, (low, high), held = interval(win, "gold_ci95"), kl_band(report), judge(report)
    return [
        {
            "name": "Gold reward",
            "value": f"{show_number(before.get('gold_mean'), 2)} → {show_number(after.get('gold_mean'), 2)}",
            "note": "before → after training",
        },
        {
            "name": "Win rate",
            "value": show_share(win.get("gold")),
            "note": f"95% interval {show_share(ends[0])} to {show_share(ends[1])}" if ends else "no interval",
        },
        {
            "name": "KL, last half",
            "value": show_number(kl_late(report), 2),
            "note": f"nats; wanted {low:.2g}–{high:.2g}",
        },
        {
            "name": "Reward model accuracy",
            "value": show_share(reward_model.get("accuracy_ensemble")),
            "note": f"length alone {show_share(reward_model.get('accuracy_length_baseline'))}",
        },
        {
            "name": "Checks that hold",
            "value": f"{sum(claim.holds is True for claim in held)} of {len(held)}",
            "note": "watchdog events: " + (str(len(items(report["warnings"]))) if "warnings" in report else "–"),
        },
    ]


def _reward_model(part: Mapping[str, Any]) -> dict[str, Any]:
    baseline = number(part.get("accuracy_length_baseline"))
    named = [("Ensemble", number(part.get("accuracy_ensemble")))]
    named += [(f"Member {i}", value) for i, value in enumerate(series(part, "accuracy_members"), start=1)]
    named += [("Length alone", baseline)]
    rows = [
        {
            "name": name,
            "value": value,
            "bar": None if value is None else share_bar(value, title=f"{name}: {value:.1%}", reference=0.5),
        }
        for name, value in named
    ]
    facts = {key: number(part.get(key)) for key in ("members", "train_pairs", "eval_pairs", "ece")}
    return {"rows": rows, **facts}


def _compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for key, name, unit, better in _COMPARED:
        first, last = number(before.get(key)), number(after.get(key))
        change = None if first is None or last is None else last - first
        judged = (
            ""
            if change is None or better == 0
            else "same"
            if change == 0
            else "better"
            if change * better > 0
            else "worse"
        )
        rows.append({"name": name, "unit": unit, "first": first, "last": last, "change": change, "judged": judged})
    return rows


def _win_rate(part: Mapping[str, Any]) -> dict[str, Any]:
    point, ends = number(part.get("gold")), interval(part, "gold_ci95")
    bar = None
    if point is not None and ends is not None:
        title = f"Win rate {point:.1%}, 95% interval {ends[0]:.1%} to {ends[1]:.1%}"
        bar = interval_bar(point, *ends, title=title)
    return {"point": point, "ends": ends, "n": number(part.get("n")), "bar": bar}


def _paired_samples(report: Report) -> list[tuple[Sample, Sample]]:
    first, last = (items(section(report, side).get("samples")) for side in ("before", "after"))
    both = [(a, b) for a, b in zip(first, last, strict=False) if isinstance(a, Mapping) and isinstance(b, Mapping)]
    # A prompt that was answered several times is shown once, by its first samples.
    by_prompt: dict[object, tuple[Sample, Sample]] = {}
    for index, pair in enumerate(both):
        by_prompt.setdefault(pair[0].get("id", index), pair)
    return list(by_prompt.values())


def _pairs(both: list[tuple[Sample, Sample]]) -> list[dict[str, Any]]:
    """Ten prompts with both responses, one of each type in turn in the report's order; no score picks them."""
    seen: dict[str, int] = {}
    turns = []
    for index, (first, _) in enumerate(both):
        kind = str(first.get("type"))
        seen[kind] = seen.get(kind, 0) + 1
        turns.append((seen[kind], index))
    chosen = sorted(index for _, index in sorted(turns)[:SHOWN_PROMPTS])
    return [
        {
            "prompt": str(both[index][0].get("prompt", "prompt not reported")),
            "type": str(both[index][0].get("type") or "type not reported"),
            "same": both[index][0].get("prompt") == both[index][1].get("prompt"),
            "sides": [_side(name, each) for name, each in zip(("Before", "After"), both[index], strict=True)],
        }
        for index in chosen
    ]


def _side(name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    text, reason = sample.get("response"), sample.get("finish_reason")
    ending = {"length": "cut off at the length limit", "eos_token": "ended by itself", "stop_sequence": "stop sequence"}
    return {
        "name": name,
        "text": mark_repeats(text) if isinstance(text, str) else None,
        "ending": ending.get(str(reason), str(reason or "ending not reported")),
        "cut": reason == "length",
        "scores": {key: number(sample.get(key)) for key in ("gold", "proxy", "uncertainty")},
    }


def _event(warning: object) -> dict[str, Any]:
    """One watchdog event: a plain string, or a mapping whose unknown keys are shown too."""
    if not isinstance(warning, Mapping):
        warning = {"message": str(warning)}
    told = ("name", "step", "message", "value", "threshold", "hint")
    event = {key: warning.get(key) for key in told}
    for key in ("value", "threshold"):
        event[key] = show_number(event[key]) if number(event[key]) is not None else str(event[key] or "–")
    event["more"] = ", ".join(f"{key}: {value}" for key, value in warning.items() if key not in told)
    return event


def _durations(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), _clock(number(seconds))) for name, seconds in part.items()]


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def _facts(value: object) -> list[tuple[str, str]]:
    """Name and text of each entry; a list or a single value gets one row without a name."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(name), _plain(each)) for name, each in value.items()]
    return [("", _plain(value))]


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return f"{value:,.0f}" if isinstance(value, float) else str(value)
