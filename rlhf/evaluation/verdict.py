"""Judges a finished run from its report: what a good run shows, what was seen instead, and a few plain sentences.

Not a test of the code: a claim that fails is a statement about the run, and a report that lacks its numbers leaves the
claim open instead of failing it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from rlhf.evaluation.readings import Series, interval, items, number, section, series

LEAST_ACCURACY = 0.75  # of the ensemble on held-out pairs
MOST_RATIO_ERROR = 1e-3  # of the first minibatch's probability ratio, which is 1 in exact arithmetic
LEAST_DISTINCT = 0.9  # of distinct-2 before training
KL_BAND = (0.1, 0.5)  # nats per sequence: the band around the demo's target of 0.3

Report = Mapping[str, Any]
Tone = Literal["good", "mixed", "bad", "open"]


@dataclass(frozen=True)
class Claim:
    """One thing a good run shows: what is claimed, what was seen, and whether it holds (None: cannot be told)."""

    text: str
    seen: str
    holds: bool | None


@dataclass(frozen=True)
class Verdict:
    """The run in words: the headline, the sentences under it, and the tone of both."""

    tone: Tone
    headline: str
    sentences: list[str]


def kl_band(report: Report) -> tuple[float, float]:
    """Return the band, in nats per sequence, that the KL of the last half of the run should lie in.

    0.1–0.5 for a target inside it (or none given); another target is held within a third of it and five thirds, which
    is the same band around 0.3.
    """
    target = number(section(report, "ppo").get("kl_target"))
    if target is None or KL_BAND[0] <= target <= KL_BAND[1]:
        return KL_BAND
    return target / 3, target * 5 / 3


def kl_late(report: Report) -> float | None:
    """Return the median KL per sequence, in nats, over the last half of the steps."""
    values = series(section(report, "ppo"), "kl_sequence")
    return _over(median, values[len(values) // 2 :])


def judge(report: Report) -> list[Claim]:
    """Hold a report against everything that a good run shows."""
    return [*_judge_reward_model(report), *_judge_training(report), *_judge_outcome(report)]


def _judge_reward_model(report: Report) -> list[Claim]:
    part = section(report, "reward_model")
    accuracy, baseline = number(part.get("accuracy_ensemble")), number(part.get("accuracy_length_baseline"))
    return [
        _claim(
            f"Reward model: ensemble accuracy on held-out pairs above {LEAST_ACCURACY:.0%}",
            lambda a: f"{a:.1%}",
            lambda a: a > LEAST_ACCURACY,
            accuracy,
        ),
        _claim(
            "Reward model: more accurate than preferring by length alone",
            lambda a, b: f"{a:.1%} against {b:.1%}",
            lambda a, b: a > b,
            accuracy,
            baseline,
        ),
    ]


def _judge_training(report: Report) -> list[Claim]:
    ppo = section(report, "ppo")
    losses = [value for value in series(ppo, "policy_loss") if value is not None]
    ratio = _over(lambda values: max(abs(value - 1) for value in values), series(ppo, "ratio_first_minibatch"))
    low, high = kl_band(report)
    return [
        _claim(
            "Policy loss: never 0, and changing",
            lambda zeros, distinct: f"{zeros:.0f} zeros, {distinct:.0f} different values in {len(losses)} steps",
            lambda zeros, distinct: zeros == 0 and distinct > 1,
            # One step cannot show a change.
            float(losses.count(0.0)) if len(losses) > 1 else None,
            float(len(set(losses))),
        ),
        _claim(
            f"Probability ratio of each first minibatch within {MOST_RATIO_ERROR:g} of 1",
            lambda error: f"at most {error:.2g} away".replace("-", "−"),
            lambda error: error <= MOST_RATIO_ERROR,
            ratio,
        ),
        _claim(
            "KL per sequence: not negative on average",
            lambda kl: f"mean {kl:.3f} nats".replace("-", "−"),
            lambda kl: kl >= 0,
            _over(fmean, series(ppo, "kl_sequence")),
        ),
        _claim(
            f"KL per sequence: median of the last half of the steps in {low:.2g}–{high:.2g} nats",
            lambda kl: f"{kl:.3f} nats",
            lambda kl: low <= kl <= high,
            kl_late(report),
        ),
    ]


def _judge_outcome(report: Report) -> list[Claim]:
    before, after = section(report, "before"), section(report, "after")
    win = interval(section(report, "win_rate"), "gold_ci95")

    def change(text: str, key: str, holds: Callable[[float, float], bool]) -> Claim:
        return _claim(
            text,
            lambda a, b: f"{a:.3f} → {b:.3f}".replace("-", "−"),
            holds,
            number(before.get(key)),
            number(after.get(key)),
        )

    return [
        change("Gold reward: higher after than before", "gold_mean", lambda a, b: b > a),
        change("Learned reward: higher after than before", "proxy_mean", lambda a, b: b > a),
        _claim(
            "Win rate by gold reward: 95% interval above 50%",
            "{:.1%} to {:.1%}".format,
            lambda low, high: low > 0.5,
            *(win or (None, None)),
        ),
        change("Repetition (rep-4): not higher after than before", "rep4", lambda a, b: b <= a),
        change(
            f"Variety (distinct-2): at least {LEAST_DISTINCT:g} × what it was",
            "distinct2",
            lambda a, b: b >= LEAST_DISTINCT * a,
        ),
    ]


def conclude(report: Report) -> Verdict:
    """Say in plain words what the run did and whether anything went wrong."""
    win = section(report, "win_rate")
    ends = interval(win, "gold_ci95")
    trouble, clean = _trouble(report)
    if ends is None:
        tone: Tone = "open"
        headline = "Not judged: the report holds no win rate with its interval."
    elif ends[0] > 0.5:
        tone = "good" if clean else "mixed"
        headline = "The policy learned: its answers are better than before training."
    elif ends[1] < 0.5:
        tone, headline = "bad", "The policy got worse: its answers are below those from before training."
    else:
        tone, headline = "mixed", "No clear change: the win rate's interval holds 50%."
    return Verdict(tone, headline, [*_outcome(report), *_drift(report), trouble])


def _outcome(report: Report) -> list[str]:
    win = section(report, "win_rate")
    gold, prompts, ends = number(win.get("gold")), number(win.get("n")), interval(win, "gold_ci95")
    first = number(section(report, "before").get("gold_mean"))
    last = number(section(report, "after").get("gold_mean"))
    said = []
    if first is not None and last is not None:
        said.append(f"Gold reward, which training never saw, went from {first:.3f} to {last:.3f}.")
    if gold is not None:
        between = f" (95% interval {ends[0]:.1%} to {ends[1]:.1%})" if ends else ""
        over = f" over {prompts:.0f} held-out prompts" if prompts is not None else ""
        said.append(
            f"Answers after training win {gold:.1%} of comparisons with those from before{over}{between}; "
            "a tie counts half."
        )
    return said


def _drift(report: Report) -> list[str]:
    late = kl_late(report)
    if late is None:
        return []
    low, high = kl_band(report)
    place = "below" if late < low else "above" if late > high else "inside"
    return [
        f"The policy moved {late:.2f} nats per sequence from the base model (median KL of the last half of the steps), "
        f"{place} the wanted {low:.2g}–{high:.2g}."
    ]


def _trouble(report: Report) -> tuple[str, bool]:
    """Say what went wrong; True when nothing did and everything could be told."""
    claims = judge(report)
    failed = [claim for claim in claims if claim.holds is False]
    unknown = [claim for claim in claims if claim.holds is None]
    events = len(items(report.get("warnings")))
    said = []
    if failed:
        said.append(f"{len(failed)} of {len(claims)} checks fail")
    if unknown:
        said.append(f"{len(unknown)} of {len(claims)} checks cannot be told, for want of numbers")
    if events:
        said.append(f"{events} watchdog event{'s' if events > 1 else ''}")
    if report.get("warnings") is None:
        said.append("watchdog events were not recorded")
    if said:
        return f"To look at: {'; '.join(said)}.", False
    return f"Nothing went wrong: all {len(claims)} checks hold, and no watchdog fired.", True


def _claim(text: str, show: Callable[..., str], holds: Callable[..., bool], *values: float | None) -> Claim:
    if any(value is None for value in values):
        return Claim(text, "not enough values", None)
    return Claim(text, show(*values), holds(*values))


def _over(fold: Callable[[list[float]], float], values: Series) -> float | None:
    known = [value for value in values if value is not None]
    return fold(known) if known else None
