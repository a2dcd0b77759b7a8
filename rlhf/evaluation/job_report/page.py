"""The report of one job as HTML: a pure function of its records."""

from __future__ import annotations

from rlhf.evaluation.job_curves import draw
from rlhf.evaluation.job_report.described import describe_data, describe_policy, list_settings
from rlhf.evaluation.job_report.measured import tell_evaluation, tell_failures
from rlhf.evaluation.job_report.records import JobRecords
from rlhf.evaluation.job_report.scored import tell_reward_model
from rlhf.evaluation.job_report.tiles import list_times, make_tiles, summarise, tone_of
from rlhf.evaluation.job_report.told import choose_events, choose_samples, collect_warnings
from rlhf.evaluation.pages import render_page

KINDS = {"ppo": "PPO", "reward_model": "Reward model", "evaluation": "Evaluation"}


def render_job_report(records: JobRecords) -> str:
    """A page that needs no network and runs no script. Every text is escaped.

    Args:
        records: of a job of any kind, in any state. A section without data says so or is not there.
    """
    events, status = records.events or [], records.status
    samples, all_samples = choose_samples(events)
    shown, older = choose_events(events)
    warnings = collect_warnings(events)
    if records.kind == "evaluation":
        warnings += [row for each in records.evaluations for row in tell_failures(each)]
    last = records.rows[-1] if records.rows else {}
    view = {
        "job": records.job,
        "kind": records.kind,
        "kind_name": KINDS[records.kind],
        "state": None if status is None else status.state.value,
        "reason": None if status is None else status.reason,
        "tone": tone_of(status, warned=bool(warnings)),
        "summary": summarise(records),
        "times": list_times(status),
        "notices": _notices(records),
        "sections": _sections(records),
        "warnings": warnings,
        "events_known": records.events is not None,
        "tiles": make_tiles(records),
        "curves": draw(records.kind, records.rows, events),
        "last": sorted((name, value) for name, value in last.items() if name != "time"),
        "evaluations": [tell_evaluation(each) for each in records.evaluations],
        "reward_model": None if records.reward_model is None else tell_reward_model(records.reward_model),
        "samples": samples,
        "all_samples": all_samples,
        "data": describe_data(records),
        "policy": describe_policy(records) if records.kind == "ppo" else [],
        "settings": list_settings(records.config),
        "events": shown,
        "older_events": older,
    }
    return render_page("job.html.j2", view)


def _sections(records: JobRecords) -> list[tuple[str, str]]:
    """Anchors and names of what the page has, for its list of links."""
    sections = [("warnings", "Warnings")]
    if records.kind == "reward_model":
        sections += [("reward-model", "Quality"), ("curves", "Curves")]
    if records.kind == "ppo":
        sections += [("curves", "Curves")]
    if records.evaluations:
        newest = records.evaluations[0]
        sections.append(("outcome-1", "Baseline and adapter"))
        sections += [("safety-1", "Safety")] if "xstest" in newest else []
        sections += [("red-team-1", "Red team")] if "red_team" in newest else []
        sections += [("bias-1", "Bias")] if "bbq" in newest or "counterfactual" in newest else []
    if records.kind == "ppo":
        sections += [("samples", "Samples")]
        sections += [] if records.reward_model is None else [("reward-model", "Reward model")]
    sections.append(("data", "Data card"))
    sections += [] if records.kind == "evaluation" else [("card", "Model card")]
    return [*sections, ("settings", "Settings"), ("events", "Events")]


def _notices(records: JobRecords) -> list[str]:
    """What the page lacks, and why."""
    notices = [f"{name} is too large for a report and was left out." for name in records.left_out]
    if records.status is None:
        notices.append(
            "The folder has no record.json, which a worker writes at a job's end: state, reason, events, watchdogs and "
            "samples are unknown here. Where the stack still runs, `rlhf report JOB` asks it for them."
        )
    elif not records.status.state.final:
        notices.append(f"The job has not ended: it is {records.status.state.value}. A later report will tell more.")
    return notices
