"""Pairs to judge: as people upload them, and in the order in which they are shown. Pure; no HTTP, no database."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from rlhf.contracts.base import Contract, Prompt, prompt_messages
from rlhf.contracts.errors import InvalidInput
from rlhf.contracts.reward import SampleScore
from rlhf.evaluation.preferences import preference_uncertainty
from rlhf.serving.service import describe_validation
from services.console.store.models import Verdict

MOST_PAIRS = 5000
"""Of one study."""
ORDERINGS = ("random", "disagreement")

Text = Annotated[str, Field(max_length=50_000)]
PolicyName = Annotated[str, Field(min_length=1, max_length=100)]


class GivenPair(Contract):
    """One line of an upload."""

    prompt: Prompt
    responses: tuple[Text, Text]
    policies: tuple[PolicyName, PolicyName] = Field(description="who wrote them; the same name twice may be")
    gold: Verdict | None = Field(
        None, description="the right verdict, a for the first response, where this is a question to check attention"
    )

    @model_validator(mode="after")
    def _texts_can_be_stored(self) -> Self:
        turns = [message.content for message in prompt_messages(self.prompt)]
        if any("\0" in text for text in (*turns, *self.responses, *self.policies)):
            raise ValueError("a text holds the character U+0000, which databases refuse; remove it")
        return self


@dataclass(frozen=True)
class ScoredPair:
    """A pair, and what a reward model's ensemble says of its two responses; None: nothing."""

    given: GivenPair
    scores: tuple[SampleScore, SampleScore] | None = None

    @property
    def disagreement(self) -> float | None:
        """How much the members disagree about the better response, nats: what one vote tells of the others."""
        if self.scores is None:
            return None
        first, second = (np.array(score.members) for score in self.scores)
        _, disagreement = preference_uncertainty(1 / (1 + np.exp(second - first))[:, None])
        return float(disagreement[0])


def read_pairs(data: bytes) -> list[GivenPair]:
    """The pairs of a JSON Lines file.

    Raises:
        InvalidInput: it is none, or a line is no pair; says which line, what was seen and what to send.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the file is no text in UTF-8 (byte {error.start}); send JSON Lines in UTF-8") from error
    pairs = list(_read_lines(text))
    if not 1 <= len(pairs) <= MOST_PAIRS:
        raise InvalidInput(f"the file has {len(pairs)} pairs; send 1 to {MOST_PAIRS}, one a line")
    return pairs


def arrange(pairs: Sequence[ScoredPair], ordering: Literal["random", "disagreement"], seed: str) -> list[ScoredPair]:
    """The pairs in the order in which everybody gets them; whoever stops early then shares pairs with the others.

    Args:
        pairs: of a study.
        ordering: at random, or where the ensemble disagrees most first, unscored ones last.
        seed: draws the order, and where questions that check attention stand among the others.
    """
    draw = random.Random(seed)
    golden = [pair for pair in pairs if pair.given.gold is not None]
    others = [pair for pair in pairs if pair.given.gold is None]
    draw.shuffle(others)
    if ordering == "disagreement":
        others.sort(key=lambda pair: -1.0 if pair.disagreement is None else pair.disagreement, reverse=True)
    for pair in golden:
        others.insert(draw.randint(0, len(others)), pair)
    return others


def _read_lines(text: str) -> Iterator[GivenPair]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield GivenPair.model_validate_json(line)
        except ValidationError as error:
            found = [dict(each) for each in error.errors(include_url=False)[:3]]
            is_json = found[0]["type"] != "json_invalid"
            told = describe_validation(found) if is_json else f"{found[0]['msg']} (got {line[:80]!r})"
            raise InvalidInput(
                f'line {number}: {told}; a line is {{"prompt": …, "responses": [a, b], "policies": [of a, of b]}} '
                'and may have "gold": "a", "b", "tie" or "both_bad"'
            ) from error
