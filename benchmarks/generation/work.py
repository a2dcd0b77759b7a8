"""The work that every contender does: the same prompts in the same order, the same settings. Nothing is run here."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

PENALTY = 1.2


@dataclass(frozen=True)
class Question:
    """One prompt, as a conversation and as the text that its chat template makes."""

    messages: list[dict[str, str]]
    text: str


@dataclass(frozen=True)
class Phase:
    """What happens at one number of clients. A prompt is used once, so that no prefix cache has seen it.

    Attributes:
        clients: how many ask at once.
        warm: one for each client, not timed.
        measured: one list for each turn, with one question for each client.
        streamed: the same, for the time to the first token.
    """

    clients: int
    warm: list[Question]
    measured: list[list[Question]]
    streamed: list[list[Question]]


@dataclass(frozen=True)
class Work:
    """Everything a contender needs to know.

    Attributes:
        model: a local folder.
        tokens: that every response has, exactly.
        phases: one for each number of clients.
    """

    model: str
    tokens: int
    phases: list[Phase]


@dataclass(frozen=True)
class Timing:
    """What one contender did at one number of clients.

    Attributes:
        tokens_per_s: response tokens by the clock on the wall.
        p50, p95: seconds from request to complete answer.
        first_token: seconds from request to the first token, the median; None where there are no streams.
        texts: of the answers, by turn, then client.
    """

    clients: int
    tokens_per_s: float
    p50: float
    p95: float
    first_token: float | None
    texts: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that define the work."""
    parser.add_argument("--model", help="a local folder; default: SmolLM2-135M-Instruct, made when it is absent")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="concurrent clients")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of every response")
    parser.add_argument("--requests", type=int, default=4, help="requests of each client")


def arguments(options: argparse.Namespace, model: str) -> list[str]:
    """The same options for another process."""
    clients = [str(count) for count in options.clients]
    made = ["--model", model, "--tokens", str(options.tokens), "--requests", str(options.requests)]
    return [*made, "--clients", *clients]


def make_work(options: argparse.Namespace, model: str) -> Work:
    """The work of these options; the same in every process."""
    questions = _questions(model)
    phases = []
    for clients in options.clients:
        turns = [list(itertools.islice(questions, clients)) for _ in range(options.requests)]
        warm = list(itertools.islice(questions, clients))
        # One client alone would give one time; a few turns give a median.
        streamed = [list(itertools.islice(questions, clients)) for _ in range(max(1, 4 // clients))]
        phases.append(Phase(clients, warm, turns, streamed))
    return Work(model, options.tokens, phases)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _questions(model: str) -> Iterator[Question]:
    from rlhf.demo.dataset import load_prompts
    from rlhf.demo.preset import conversation
    from rlhf.lm.chat import render_prompt
    from rlhf.lm.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    for row in itertools.cycle(load_prompts("train")[::3] + load_prompts("train")[1::3] + load_prompts("train")[2::3]):
        messages = conversation(row)
        yield Question([message.model_dump() for message in messages], render_prompt(tokenizer, messages))
