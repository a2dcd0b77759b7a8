"""What the routes need of a backend. The embedded engine has it too, so that every dialect works on every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rlhf.contracts.policy import SamplingParams
from rlhf.lm.loading import TextModel
from services.policy.engine.requests import PLAIN, EngineRequest, Limits, Notify, no_news
from services.policy.engine.rows import Extras

UNKNOWN = "unknown"
"""For what a server does not tell of its model."""


@dataclass(frozen=True)
class ModelFacts:
    """What `GET /info` tells of the model that computes.

    Attributes:
        model_type: family of the architecture.
        dtype: of the weights.
        device: where they are.
    """

    model_type: str
    dtype: str = UNKNOWN
    device: str = UNKNOWN


class Backend(Protocol):
    """Takes requests from any thread and fills their rows on its own; a worker as `rlhf.serving.runtime` has it."""

    @property
    def base(self) -> TextModel:
        """The model's name, tokenizer and length."""

    @property
    def facts(self) -> ModelFacts:
        """What else is known of it."""

    @property
    def limits(self) -> Limits:
        """Of requests, and of what is computed together."""

    @property
    def adapters(self) -> list[str]:
        """Adapters that are ready, the one used last at the end."""

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""

    def start(self) -> None:
        """Begins to work."""

    def submit(
        self,
        prompts: list[list[int]],
        sampling: SamplingParams,
        adapter: str | None = None,
        extras: Extras = PLAIN,
        progressed: Notify = no_news,
    ) -> EngineRequest:
        """Queues a request; its `outcome` is resolved later.

        Args:
            prompts: token ids of each prompt.
            sampling: for all of them.
            adapter: `job@version`, or None for the base model.
            extras: what to report besides tokens.
            progressed: called from the backend's thread when rows have more tokens, and at the end; must not block.

        Raises:
            InvalidInput, TooLarge: the request cannot be served.
            Overloaded: too many wait already.
            Unavailable: it is stopping.
        """

    def drain(self, seconds: float) -> bool:
        """Takes no new requests and waits for those it has. Returns whether they finished in time."""

    def stop(self, seconds: float = ...) -> None:
        """Ends: requests that are not done answer 503. Args: seconds, to wait for the thread."""
