"""The figures that matter most of a job, and its state in words. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.contracts.jobs import JobState, JobStatus
from rlhf.evaluation.formats import show_duration, show_moment, show_number, show_share
from rlhf.evaluation.job_report.records import JobRecords
from rlhf.evaluation.readings import interval, number, section

Tiles = list[dict[str, str]]


def tone_of(status: JobStatus | None, *, warned: bool) -> str:
    """How the page's head looks: good, mixed, bad, or open while nothing can be said."""
    if status is None or not status.state.final:
        return "open"
    if status.state is JobState.SUCCEEDED:
        return "mixed" if warned else "good"
    return "bad" if status.state is JobState.FAILED else "mixed"


def summarise(records: JobRecords) -> str:
    """One sentence: how far the job came and how long it took."""
    status = records.status
    if status is None:
        done = max((int(number(row.get("step")) or 0) for row in records.rows), default=0)
        return f"Its files tell of {done} steps. How it ended is not in its folder."
    took = ""
    if status.started_at is not None and status.finished_at is not None:
        took = f" in {show_duration(status.finished_at - status.started_at)}"
    taken_up = f"; a worker began it {status.attempts} times" if status.attempts > 1 else ""
    return f"{status.step} of {status.total_steps} steps done{took}{taken_up}."


def list_times(status: JobStatus | None) -> list[tuple[str, str]]:
    """When it was submitted, started and ended."""
    if status is None:
        return []
    times = (("Submitted", status.created_at), ("Started", status.started_at), ("Ended", status.finished_at))
    return [(name, show_moment(seconds)) for name, seconds in times]


def make_tiles(records: JobRecords) -> Tiles:
    """The head's figures, those that there are."""
    if records.kind == "ppo":
        made = _of_training(records.rows)
        return made + (_of_evaluation(records.evaluations[0]) if records.evaluations else [])
    if records.kind == "evaluation":
        return _of_evaluation(records.evaluations[0]) if records.evaluations else []
    figures = records.reward_model.figures if records.reward_model else None
    return [] if figures is None else _of_reward_model(figures)


def _of_training(rows: list[dict[str, Any]]) -> Tiles:
    tiles = []
    for key, name, note in (
        ("reward_mean", "Reward", "first → last step"),
        ("kl_sequence", "KL", "nats per sequence"),
        ("rep4", "Repetition (rep-4)", "first → last step"),
    ):
        known = [value for row in rows if (value := number(row.get(key))) is not None]
        target = number(rows[-1].get("kl_target")) if rows and key == "kl_sequence" else None
        if known:
            note += "" if target is None else f"; target {show_number(target, 2)}"
            tiles.append(_tile(name, f"{show_number(known[0], 2)} → {show_number(known[-1], 2)}", note))
    return tiles


def _of_evaluation(told: Mapping[str, Any]) -> Tiles:
    tiles = []
    responses, safety = section(told, "responses"), section(told, "xstest")
    for name, win in section(responses, "win_rate").items():
        if isinstance(win, Mapping):
            ends = interval(win, "ci95")
            note = f"95% interval {show_share(ends[0])} to {show_share(ends[1])}" if ends else "no interval"
            tiles.append(_tile(f"Win rate by {name}", show_share(win.get("win_rate")), note))
            break
    if (kl := number(section(responses, "kl").get("per_sequence"))) is not None:
        tiles.append(_tile("KL to the baseline", show_number(kl, 2), "nats per sequence"))
    rates = [section(section(safety, side), "over_refusal").get("rate") for side in ("baseline", "adapter")]
    if any(number(rate) is not None for rate in rates):
        tiles.append(_tile("Over-refusal", " → ".join(map(show_share, rates)), "baseline → adapter, safe prompts"))
    bias = [
        section(section(section(section(told, "bbq"), side), "all"), "ambig").get("bias_score")
        for side in ("baseline", "adapter")
    ]
    if any(number(score) is not None for score in bias):
        tiles.append(_tile("Bias, ambiguous", " → ".join(map(show_number, bias)), "baseline → adapter; 0 is best"))
    return tiles


def _of_reward_model(figures: Mapping[str, Any]) -> Tiles:
    ends = interval(figures, "accuracy_ensemble_ci95")
    note = f"95% interval {show_share(ends[0])} to {show_share(ends[1])}" if ends else "on held-out pairs"
    return [
        _tile("Accuracy", show_share(figures.get("accuracy_ensemble")), note),
        _tile("By length alone", show_share(figures.get("accuracy_length_baseline")), "what the accuracy must beat"),
        _tile("Calibration error", show_number(figures.get("ece")), "expected; 0 is best"),
        _tile("Mistakes foretold", show_number(figures.get("auroc_uncertainty"), 2), "AUROC of uncertainty; 0.5: not"),
    ]


def _tile(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}
