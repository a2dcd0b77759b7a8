"""The real process: a port, a key, a log, a signal."""

import json
import signal

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.reward import RewardClient
from rlhf.contracts.errors import NotFound, Unauthorized
from rlhf.contracts.reward import RewardRequest, RewardSample, SampleScore
from rlhf.lm.loading import LanguageModel
from tests.contract.reward.conftest import publish
from tests.integration.reward.conftest import KEY, Serve


def test_scores_and_stops_cleanly(base: LanguageModel, store: ArtifactStore, serve: Serve) -> None:
    publish(store, base, "rm-a", 1, members=2)
    with serve() as server, RewardClient(server.url, KEY) as client:
        request = RewardRequest(samples=[RewardSample(prompt="hi", response="there")], model="rm-a@1")
        (result,) = client.score(request).results
        assert isinstance(result, SampleScore)
        with pytest.raises(NotFound):
            client.score(request.model_copy(update={"model": "rm-b@1"}))
        with RewardClient(server.url, "wrong") as stranger, pytest.raises(Unauthorized):
            stranger.score(request)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert lines
    assert [line for line in lines if line["level"] in ("warning", "error")] == []
