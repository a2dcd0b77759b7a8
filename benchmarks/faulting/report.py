"""What bench-faults prints: a row a run, what an ill reward service did, what is not as it must be, and JSON."""

from __future__ import annotations

import json

from benchmarks.faulting.keeper import Keeper
from benchmarks.faulting.record import Record, find_faults
from rlhf.contracts.jobs import JobState, PpoJobConfig

Outages = dict[str, dict[str, object]]
"""What was seen of each illness, by its name."""


def report(config: PpoJobConfig, runs: dict[str, Record], outages: Outages, keeper: Keeper, planned: int) -> int:
    """The tables, and the same as JSON on the last line. Returns the exit code. Args: planned, number of kills."""
    undisturbed, kills = runs["undisturbed"], sum(keeper.kills.values())
    failures = [] if kills == planned else [f"the jobs were over after {kills} of {planned} kills; give more --steps"]
    lost = 0
    print(f"\n{'run':<14}{'state':<12}{'seconds':>8}{'attempts':>10}{'batches':>9}{'weights':>24}")
    for name, record in runs.items():
        count, faults = find_faults(record, config, undisturbed)
        lost += count
        failures += [f"{name}: {fault}" for fault in faults]
        if record.status.state is not JobState.SUCCEEDED:
            failures.append(f"{name}: {record.status.state}: {record.status.reason}")
        if not _same(record, undisturbed):
            failures.append(f"{name}: its weights are not the undisturbed run's")
        weights = "identical" if _same(record, undisturbed) else f"differ from step {_parting(record, undisturbed)}"
        row = f"{name:<14}{record.status.state:<12}{record.seconds:>8.0f}{record.status.attempts:>10}"
        print(f"{row}{len(record.journal.added):>9}{weights:>24}")
    failures += judge_outages(outages)
    for death in keeper.deaths:
        print(f"\nnobody killed it: {death}, and was started again")
    print("\n" + ("\n".join(f"WRONG: {failure}" for failure in failures) or "everything is as it must be"))
    figures = {
        "kills": kills,
        "kills_of": dict(keeper.kills),
        "batches": sum(len(record.journal.added) for record in runs.values()),
        "batches_lost_or_doubled": lost,
        "weights_identical": _same(runs["learner"], undisturbed),
        "weights_identical_all_kills": _same(runs["everything"], undisturbed),
        "ended_by_themselves": keeper.deaths,
        "seconds": {name: round(record.seconds) for name, record in runs.items()},
        "outages": outages,
        "failures": failures,
    }
    print(json.dumps(figures))
    return 1 if failures else 0


def judge_outages(outages: Outages) -> list[str]:
    """Prints each; returns what is not as it must be."""
    failures = []
    for illness, found in outages.items():
        print(f"\nreward service ill, {illness}:")
        for what, value in found.items():
            print(f"  {what:<18}{value}")
        if not found["requests_harmed"]:
            failures.append(f"{illness}: nobody met it, the check is void")
        if found["rewards_invented"]:
            failures.append(f"{illness}: {found['rewards_invented']} rewards that the service never gave")
        if not found["told"]:
            failures.append(f"{illness}: the job is {found['state']} and never said what it waited for")
    return failures


def _same(record: Record, other: Record) -> bool:
    return record.final == other.final and record.weights == other.weights


def _parting(record: Record, other: Record) -> int:
    """The first step whose adapters differ; 0: none, only what is no part of an adapter."""
    versions = sorted({*record.weights, *other.weights})
    return next((step for step in versions if record.weights.get(step) != other.weights.get(step)), 0)
