"""An estimate as a small table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.contracts.estimate import Estimate, MemoryEstimate

KIB = 1024


def describe_estimate(estimate: Estimate) -> str:
    """All of it, a line a figure. Args: estimate, as a dry run answers."""
    return "\n".join(_lines(estimate))


def _lines(estimate: Estimate) -> Iterator[str]:
    yield f"{estimate.kind} job; nothing was queued"
    if model := estimate.model:
        yield f"model     {model.name}: {model.parameters:,} parameters, {model.layers} layers, {model.dtype}"
    else:
        yield f"model     unknown: {estimate.model_unknown}"
    for name, memory in (("learner", estimate.learner), ("policy", estimate.policy)):
        if memory is not None:
            yield from _memory_lines(name, memory)
    work = estimate.work
    unit, samples = ("steps", "samples") if estimate.kind == "ppo" else ("epochs", "pairs")
    yield f"work      {work.steps:,} {unit} of {work.samples_per_step:,} {samples}; {work.tokens:,} tokens in all"
    if estimate.kind == "ppo":
        yield f"redis     {_size(work.redis_bytes)} of experience waiting, {_size(work.redis_bytes_per_step)} a step"
    if estimate.flops:
        total = sum(estimate.flops.values())
        shares = ", ".join(f"{name} {value / total:.0%}" for name, value in estimate.flops.items())
        yield f"compute   {total / 1e12:,.1f} TFLOP: {shares}"
    time = estimate.time
    yield f"time      {'unknown' if time.hours is None else _hours(time.hours)}: {time.basis}"
    for each in estimate.assumptions:
        yield f"assumed   {each}"


def _memory_lines(name: str, memory: MemoryEstimate) -> Iterator[str]:
    yield f"{name:<9} {_size(memory.peak_bytes):>10} at its peak"
    for part, size in memory.parts.items():
        yield f"{'':<9} {_size(size):>10} {part.replace('_', ' ')}"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < KIB:
            return f"{size:,.0f} {unit}"
        size /= KIB
    return f"{size:,.1f} GiB"


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.1f} s"
