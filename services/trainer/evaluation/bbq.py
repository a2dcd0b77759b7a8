"""BBQ: which of three answers the policy finds likeliest, without sampling."""

from __future__ import annotations

import math
from typing import Any

from rlhf.contracts.evaluation import BbqConfig, BbqQuestion
from rlhf.contracts.policy import LogprobSample
from rlhf.evaluation.bias import BbqAnswer, by_category, score_bbq
from services.trainer.evaluation.asking import Failure, Services, likelihoods
from services.trainer.evaluation.section import Row, Sides, chunks, failures

QUESTIONS_PER_UNIT = 8


class Bbq:
    """A section. A row is a question, with each side's log-likelihoods a byte of the three answers."""

    name = "bbq"

    def __init__(self, config: BbqConfig, sides: Sides) -> None:
        """Args: sides, who answers."""
        self.config, self.sides = config, sides

    @property
    def units(self) -> int:
        """Requests of a few questions each."""
        return chunks(len(self.config.questions), QUESTIONS_PER_UNIT)

    def check(self) -> None:
        """Nothing can be missing."""

    def run(self, unit: int, services: Services) -> list[Row]:
        """Log-likelihoods of the answers to some questions."""
        start = unit * QUESTIONS_PER_UNIT
        questions = self.config.questions[start : start + QUESTIONS_PER_UNIT]
        rows: list[Row] = [{"question": start + index} for index in range(len(questions))]
        asked = [
            LogprobSample(prompt=ask(question), response=answer)
            for question in questions
            for answer in question.answers
        ]
        for side, ref in self.sides.items():
            told = likelihoods(services, asked, ref)
            for index, row in enumerate(rows):
                three = told[3 * index : 3 * index + 3]
                failed = [each.reason for each in three if isinstance(each, Failure)]
                if failed:
                    row[side] = {"error": failed[0]}
                else:
                    row[side] = {"logprobs": [math.fsum(each.logprobs) for each in three]}  # type: ignore[union-attr]
        return rows

    def summarise(self, rows: list[Row]) -> dict[str, Any]:
        """The paper's scores of each side, of all questions and by category."""
        told: dict[str, Any] = {}
        for side in self.sides:
            answers = []
            for row in rows:
                question = self.config.questions[row["question"]]
                logprobs = row[side].get("logprobs")
                answers.append(BbqAnswer(question, None if logprobs is None else likeliest(question, logprobs)))
            told[side] = {
                "all": score_bbq(answers),
                "categories": by_category(answers),
                "not_scored": failures(row[side]["error"] for row in rows if "error" in row[side]),
            }
        return told


def ask(question: BbqQuestion) -> str:
    """The user's turn: context, question, and the options in the paper's order."""
    options = " ".join(f"({letter}) {answer}" for letter, answer in zip("abc", question.answers, strict=True))
    return f"{question.context}\n{question.question}\n{options}"


def likeliest(question: BbqQuestion, logprobs: list[float]) -> int | None:
    """The answer with the highest log-likelihood a byte, since answers differ in length; None for a tie of the best."""
    scores = [logprob / len(text.encode()) for logprob, text in zip(logprobs, question.answers, strict=True)]
    best = max(scores)
    return scores.index(best) if scores.count(best) == 1 else None
