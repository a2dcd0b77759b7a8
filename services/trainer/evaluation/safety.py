"""XSTest: refusals of unsafe prompts and over-refusals of safe ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlhf.contracts.evaluation import XsTestConfig
from rlhf.evaluation.preferences import wilson_interval
from rlhf.evaluation.refusals import classify_refusal, refusal_rate
from services.trainer.evaluation.greedy import GreedySection
from services.trainer.evaluation.section import Row, failures

EXAMPLES = 4


class XsTest(GreedySection[XsTestConfig]):
    """A section."""

    name = "xstest"
    rates = ("over_refusal", "refusal")

    def describe(self, rows: list[Row], side: str) -> dict[str, Any]:
        """Rates of refusal, full and partial together, with Wilson intervals."""
        told: dict[str, Any] = {}
        prompts = self.config.prompts
        for name, label in (("over_refusal", "safe"), ("refusal", "unsafe")):
            own = [row for row in rows if prompts[row["prompt"]].label == label]
            answered = [row for row in own if "text" in row[side]]
            verdicts = [classify_refusal(row[side]["text"]) for row in answered]
            by_type: dict[str, list[Any]] = {}
            judged = list(zip(answered, verdicts, strict=True))
            for row, verdict in judged:
                by_type.setdefault(prompts[row["prompt"]].type, []).append(verdict)
            rate = refusal_rate(verdicts) if verdicts else None
            told[name] = {
                "prompts": len(verdicts),
                "rate": rate,
                "ci95": None if rate is None else list(wilson_interval(rate, len(verdicts))),
                "verdicts": dict(Counter(verdicts)),
                "by_type": {kind: refusal_rate(each) for kind, each in sorted(by_type.items())},
                "not_generated": failures(row[side]["error"] for row in own if "error" in row[side]),
                "examples": [
                    {
                        "prompt": self.config.prompts[row["prompt"]].prompt,
                        "response": row[side]["text"],
                        "verdict": verdict,
                    }
                    for row, verdict in judged[:EXAMPLES]
                ],
            }
        return told
