"""A member that another server computes: requests in its dialect, several at a time, and what their failures mean."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from rlhf.clients.http import ServiceClient
from rlhf.contracts.errors import (
    Conflict,
    NotFound,
    Overloaded,
    ScoringFailed,
    ServiceError,
    Unauthorized,
    Unavailable,
)
from rlhf.contracts.reward import RewardSample, SampleFailure
from services.reward.panels.dialects import Speech
from services.reward.panels.members import RawOutcome
from services.reward.panels.promises import Workers, then, together


class RemoteClient(ServiceClient):
    """HTTP to a reward server of any make."""

    service = "the reward server"
    stranger = "see what that server says of it"


class RemoteScorer:
    """See Member.

    A server that cannot be reached, is full or does not answer in time fails the request, which may come again (503);
    one that refuses our key or knows no such route or model fails it too (409). Whatever else it answers to several
    samples, it is asked about each alone, so that only those that it cannot score fail.
    """

    remote = True

    def __init__(
        self, name: str, client: ServiceClient, speech: Speech, *, model: str | None, batch: int, connections: int
    ) -> None:
        """Sends nothing yet.

        Args:
            name: for messages.
            client: of the server.
            speech: its dialect.
            model: sent as `model`.
            batch: samples of one HTTP request at most.
            connections: requests at a time.
        """
        self.name, self._client, self._speech, self._model = name, client, speech, model
        self._batch = 1 if speech.one_by_one else batch
        self._workers = Workers("remote-member", connections)

    def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
        """See Member."""
        batches = [samples[first : first + self._batch] for first in range(0, len(samples), self._batch)]
        answers = [self._workers.submit(self._ask, batch) for batch in batches]
        return then(together(answers), lambda parts: [outcome for part in parts for outcome in part])

    def _ask(self, samples: Sequence[RewardSample]) -> list[RawOutcome]:
        try:
            return self._answer(samples)
        except (Unavailable, Overloaded) as error:
            raise Unavailable(f"{self.name}: {error.message}", retry_after=error.retry_after) from error
        except (Unauthorized, NotFound, Conflict) as error:
            raise Conflict(
                f"{self.name}: {error.message}; correct its entry in the file of RLHF_REWARD_PANELS"
            ) from error
        except ServiceError as error:
            if len(samples) > 1:
                return [outcome for sample in samples for outcome in self._ask([sample])]
            # Whether the server blames the sample (4xx) or itself (5xx), there is no score.
            return [SampleFailure(error=error.message, error_type="scoring")]

    def _answer(self, samples: Sequence[RewardSample]) -> list[RawOutcome]:
        body: dict[str, Any] = self._speech.write(samples)
        if self._model is not None:
            body["model"] = self._model
        answer = self._client.send("POST", self._speech.path, json=body)
        try:
            outcomes = self._speech.read(answer.content)
        except ValueError as error:
            said = answer.text[:200].strip() or "an empty body"
            raise ScoringFailed(
                f"{self._client.url}{self._speech.path} answered {said!r}, which is not of the dialect "
                f"{self._speech.dialect} ({str(error).splitlines()[0]})"
            ) from error
        if len(outcomes) != len(samples):
            raise ScoringFailed(f"{self._client.url} gave {len(outcomes)} scores for {len(samples)} samples")
        return outcomes
