"""Writes the demo's report.json as one HTML page that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.evaluation.curves import draw_curves, tabulate_steps
from rlhf.evaluation.formats import list_facts, mark_repeats, show_duration, show_number, show_share
from rlhf.evaluation.pages import render_page, write_page
from rlhf.evaluation.readings import interval, items, missing_keys, number, section
from rlhf.evaluation.tables import Measure, accuracies, compare, rate, tell_event
from rlhf.evaluation.verdict import Report, conclude, judge, kl_band, kl_late

SHOWN_PROMPTS = 10

Sample = Mapping[str, Any]


_COMPARED: tuple[Measure, ...] = (
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
    write_page(render_page("report.html.j2", _view(report)), path)


def _view(report: Report) -> dict[str, Any]:
    """Everything that the template shows."""
    pairs = _paired_samples(report)
    return {
        "verdict": conclude(report),
        "tiles": _tiles(report),
        "claims": judge(report),
        "missing": missing_keys(report),
        "reward_model": accuracies(section(report, "reward_model")),
        "ppo": {key: number(section(report, "ppo").get(key)) for key in ("steps", "samples", "tokens")},
        "curves": draw_curves(report),
        "steps": tabulate_steps(report),
        "compared": compare(_COMPARED, section(report, "before"), section(report, "after")),
        "win": rate(section(report, "win_rate"), "gold", "gold_ci95", title="Win rate"),
        "pairs": _pairs(pairs),
        "n_pairs": len(pairs),
        "warnings": None
        if report.get("warnings") is None
        else [tell_event(each) for each in items(report["warnings"])],
        "durations": _durations(section(report, "durations_s")),
        "memory": list_facts(report.get("peak_memory_mib")),
        "seeds": list_facts(report.get("seeds")),
        "versions": list_facts(report.get("versions")),
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
    gold, proxy, uncertainty = (show_number(sample.get(key), 2) for key in ("gold", "proxy", "uncertainty"))
    return {
        "tone": name.lower(),
        "heading": f"{name} · gold {gold}",
        "text": mark_repeats(text) if isinstance(text, str) else None,
        "note": f"learned reward {proxy} ± {uncertainty} · ",
        "ending": ending.get(str(reason), str(reason or "ending not reported")),
        "cut": reason == "length",
    }


def _durations(part: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), show_duration(number(seconds))) for name, seconds in part.items()]
