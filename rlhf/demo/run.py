"""`rlhf demo`: the whole loop through the real services, and its report. Talks to them over HTTP only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rich.console

from rlhf.artifacts.store import ArtifactKind, listed_versions
from rlhf.clients.follow import JobFailed, run_job
from rlhf.clients.http import Retries
from rlhf.clients.policy import PolicyClient
from rlhf.clients.reward import RewardClient
from rlhf.clients.trainer import TrainerClient
from rlhf.contracts.errors import ServiceError
from rlhf.contracts.jobs import JobEvent, PpoJobConfig, RewardModelJobConfig
from rlhf.contracts.policy import Generation
from rlhf.demo.heldout import Judged, answer_prompts, describe_answers, judge_answers
from rlhf.demo.outcome import (
    collect_warnings,
    describe_ppo,
    describe_reward_model,
    describe_versions,
    write_results,
)
from rlhf.demo.preset import Plan, make_plan
from rlhf.demo.services import Address, OwnServices, RunningServices, Services
from rlhf.evaluation.win_rate import compare_paired
from rlhf.local.console import Console
from rlhf.local.jobview import JobView, describe_seconds
from rlhf.local.memory import MemorySampler
from rlhf.local.runfolder import claimed, remove
from rlhf.local.signals import StopSignals
from rlhf.local.stack import Stack, StackOptions
from rlhf.local.weights import ensure_smollm2

MADE = ("logs", "redis", "store", "report.json", "report.html")


@dataclass(frozen=True)
class DemoOptions:
    """What the user chose.

    Attributes:
        out: folder of the run; what an earlier run made there is replaced.
        seed: decides everything that is random.
        preset: file with the settings of both jobs.
        steps: PPO steps in place of the preset's.
        model: a folder or a Hub id in place of SmolLM2-135M-Instruct.
        running: addresses of policy, reward and trainer that run already; null: they are started, and stopped.
    """

    out: Path
    seed: int
    preset: Path
    steps: int | None = None
    model: str | None = None
    running: Mapping[str, Address] | None = None


@dataclass
class Results:
    """What the run has measured so far."""

    events: list[JobEvent] = field(default_factory=list)
    reward_model: dict[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    before: Judged | None = None
    after: Judged | None = None


@dataclass
class Stopwatch:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started, 2)


def run_demo(options: DemoOptions, signals: StopSignals, console: Console) -> dict[str, Any]:
    """Runs the demo and writes its report.

    Returns:
        The content of report.json.

    Raises:
        ServiceFailed: a service failed; says which, why, and its last log lines. Everything is stopped by then.
        JobFailed: as above, of a job.
        FolderBusy, PresetInvalid, WeightsUnavailable: it could not start.
    """
    watch = Stopwatch()
    with watch.phase("total"), claimed(options.out) as out:
        remove(out, MADE)
        plan = make_plan(options.preset, seed=options.seed, steps=options.steps)
        if options.running is None:
            results, model, peaks = _run_own(options, out, plan, watch, signals, console)
        else:
            services = RunningServices(options.running)
            results, model, peaks = Loop(plan, services, watch, console).run(), ask_model(services), {}
    report = assemble(plan, results, watch.seconds, peaks, model)
    write_results(report, out)
    return report


def _run_own(
    options: DemoOptions, out: Path, plan: Plan, watch: Stopwatch, signals: StopSignals, console: Console
) -> tuple[Results, str, Mapping[str, float]]:
    """The loop on services of its own; results, the model, and peak memory in MiB."""
    with watch.phase("weights"):
        model = options.model or str(ensure_smollm2(say=console.say, signals=signals))
    stack = Stack(StackOptions(folder=out, model=model), signals, console.say)
    console.say(f"starting the services; those that compute use {stack.threads} threads each; logs in {stack.logs}")
    started = time.monotonic()
    with stack, MemorySampler(lambda: {**stack.supervisor.pids, "driver": os.getpid()}) as memory:
        watch.seconds["start"] = round(time.monotonic() - started, 2)
        results = Loop(plan, OwnServices(stack), watch, console).run()
    return results, model, memory.peaks_mib


def ask_model(services: Services) -> str:
    """The model that a running policy says it has."""
    with PolicyClient(*services.address("policy")) as policy:
        return str(policy.send("GET", "/info").json()["model_id"])


class Loop:
    """The phases, against running services."""

    def __init__(self, plan: Plan, services: Services, watch: Stopwatch, console: Console) -> None:
        """Args: plan, what to do; services, running; watch, receives durations; console, for lines."""
        self.plan, self.services, self.watch, self.console = plan, services, watch, console
        # Few retries: a service that does not answer has mostly died, and that should be told soon.
        few = Retries(attempts=3)
        self.policy = PolicyClient(*services.address("policy"), retries=few)
        self.reward = RewardClient(*services.address("reward"), retries=few)
        self.trainer = TrainerClient(*services.address("trainer"), retries=few)
        self.results = Results()

    def run(self) -> Results:
        """Answers before, reward model, PPO, answers after, both judged."""
        results, config = self.results, self.plan.reward_model
        with self.watch.phase("before"):
            first = self._answer(None, "before training")
        with self.watch.phase("reward_model"):
            title = f"reward model: {config.members} members, {len(config.pairs)} preference pairs"
            job = self._train(config, title)
            results.reward_model = describe_reward_model(json.loads(self.trainer.artifact(job, "metrics.json")))
        with self.watch.phase("ppo"):
            ppo = self.plan.ppo.model_copy(update={"reward_model": self._newest(job, "reward_models")})
            job = self._train(ppo, f"PPO: {ppo.steps} steps against {ppo.reward_model}")
            results.steps = self.trainer.metrics(job).rows
        with self.watch.phase("after"):
            last = self._answer(self._newest(job, "adapters"), "after training")
        with self.watch.phase("scores"):
            results.before, results.after = self._judge(first, ppo), self._judge(last, ppo)
        return results

    def _answer(self, adapter: str | None, when: str) -> list[Generation]:
        plan = self.plan
        self.console.say(f"{len(plan.heldout)} held-out prompts, {when} (policy {adapter or 'base model'})")

        def go_on(_: int) -> None:
            self.services.check()

        with self._asking("policy"):
            return answer_prompts(
                plan.heldout,
                self.policy.generate,
                plan.evaluation,
                seed=plan.seeds.evaluation,
                adapter=adapter,
                between=go_on,
            )

    def _judge(self, generations: list[Generation], config: PpoJobConfig) -> Judged:
        with self._asking("reward"):
            return judge_answers(self.plan.heldout, generations, self.reward.score, config)

    def _train(self, config: RewardModelJobConfig | PpoJobConfig, title: str) -> str:
        view = JobView(rich.console.Console(), title)
        with self._asking("trainer-api"), view:
            try:
                status, events = run_job(self.trainer, config, view, self.services.check)
            except JobFailed as failure:
                raise self.services.failure("learner", f"failed: {failure}") from failure
        self.results.events += events
        return status.id

    def _newest(self, job: str, kind: ArtifactKind) -> str:
        """The reference of what a job published last."""
        with self._asking("trainer-api"):
            versions = listed_versions((file.path for file in self.trainer.artifacts(job)), kind)
        if not versions:
            raise self.services.failure("learner", f"published nothing under {kind} of {job}")
        return f"{job}@{versions[-1]}"

    @contextmanager
    def _asking(self, service: str) -> Iterator[None]:
        """Names the service whose request failed; a process that died is named before one that could not answer."""
        try:
            yield
        except ServiceError as error:
            raise self.services.failure(service, f"answered: {error}") from error


def assemble(
    plan: Plan, results: Results, seconds: Mapping[str, float], peaks: Mapping[str, float], model: str
) -> dict[str, Any]:
    """The content of report.json."""
    if results.before is None or results.after is None:
        raise ValueError("the held-out answers are not judged yet; run the loop first")
    win = compare_paired(
        results.before.gold,
        results.after.gold,
        samples_per_prompt=plan.evaluation.samples_per_prompt,
        seed=plan.seeds.bootstrap,
    )
    report: dict[str, Any] = {
        "reward_model": results.reward_model,
        "ppo": describe_ppo(results.steps),
        "before": describe_answers(results.before),
        "after": describe_answers(results.after),
        "win_rate": {"gold": win["win_rate"], "gold_ci95": list(win["ci95"]), "n": win["n"]},
        "seeds": asdict(plan.seeds),
        "durations_s": dict(seconds),
        "peak_memory_mib": dict(peaks),
        "versions": describe_versions(Path(model).name if Path(model).is_dir() else model),
        "settings": {
            "reward_model": plan.reward_model.model_dump(exclude={"pairs"}),
            "ppo": plan.ppo.model_dump(exclude={"prompts", "reward_model"}, by_alias=True),
            "evaluation": plan.evaluation.model_dump(),
        },
    }
    report["warnings"] = collect_warnings(results.events, report)
    return report


def summarise(report: Mapping[str, Any], out: Path) -> str:
    """The run in a few lines."""
    before, after, win = report["before"], report["after"], report["win_rate"]
    model, kl = report["reward_model"], report["ppo"]["kl_sequence"]
    low, high = win["gold_ci95"]
    took, peak = describe_seconds(report["durations_s"]["total"]), report["peak_memory_mib"].get("total")
    lines = [
        f"reward model   accuracy {model['accuracy_ensemble']:.1%} on {model['eval_pairs']} held-out pairs "
        f"(length alone {model['accuracy_length_baseline']:.1%})",
        f"gold reward    {before['gold_mean']:.3f} → {after['gold_mean']:.3f}; win rate {win['gold']:.1%} "
        f"({low:.1%} to {high:.1%}, {win['n']} prompts)",
        f"proxy reward   {before['proxy_mean']:+.3f} → {after['proxy_mean']:+.3f}",
        f"repetition     rep-4 {before['rep4']:.3f} → {after['rep4']:.3f}, "
        f"distinct-2 {before['distinct2']:.3f} → {after['distinct2']:.3f}",
        f"responses end  {before['eos_rate']:.0%} → {after['eos_rate']:.0%}",
        f"KL             {kl[-1]:.3f} nats per sequence at the last step",
        f"took           {took}" + (f", at most {peak:,.0f} MiB in all" if peak else ""),
        *(f"warning        {warning['message']}" for warning in report["warnings"]),
        f"report         {out / 'report.html'} and {out / 'report.json'}",
        *([f"logs           {out / 'logs'}"] if (out / "logs").is_dir() else []),
    ]
    return "\n".join(lines)
