"""The default is swapped again and again under load: no request fails, and none is scored by a mixture."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count

import pytest

from rlhf.artifacts.store import ArtifactStore
from rlhf.clients.http import NO_RETRIES
from rlhf.clients.reward import RewardClient
from rlhf.contracts.errors import Conflict
from rlhf.contracts.reward import RewardRequest, RewardResponse, RewardSample, SampleScore
from rlhf.lm.ensemble_bundle import load_bundle
from rlhf.lm.exchanges import encode_exchange
from rlhf.lm.loading import LanguageModel
from tests.contract.reward.conftest import publish
from tests.integration.reward.conftest import KEY, Serve

SWAPS, CLIENTS = 100, 4
TURNS = ("rm@1", "rm@2")
TEXTS = ["One.", "Two words, and some more of them.", "3", "Four 🙂", "and a fifth that is a good deal longer " * 2]
NOISE = 1e-4
"""Float noise of what else is in a batch; the two reward models are apart by much more, which is checked."""


@pytest.fixture
def alone(base: LanguageModel, store: ArtifactStore) -> dict[str, list[list[float]]]:
    """The members' scores of each text by each reward model, computed alone in this process."""
    exchanges = [encode_exchange(base.tokenizer, "Say it.", text, max_length=128) for text in TEXTS]
    scores = {}
    for version, ref in enumerate(TURNS, start=1):
        publish(store, base, "rm", version, members=3)
        ensemble = load_bundle(store.resolve("reward_models", ref), base)
        scores[ref] = [ensemble.score([exchange], token_budget=256)[0].tolist() for exchange in exchanges]
    first, second = (list(chain(*scores[ref])) for ref in TURNS)
    assert min(abs(a - b) for a, b in zip(first, second, strict=True)) > 10 * NOISE
    return scores


def check(answer: RewardResponse, start: int, size: int, alone: dict[str, list[list[float]]]) -> str:
    """Returns the reward model whose scores they are: that of the answer, for every sample and member."""
    results = answer.results
    assert len(results) == size
    for place, result in enumerate(results):
        assert isinstance(result, SampleScore)
        expected = alone[answer.model][(start + place) % len(TEXTS)]
        assert result.members == pytest.approx(expected, abs=NOISE)
        assert result.score == result.reward == pytest.approx(sum(expected) / len(expected), abs=NOISE)
    return answer.model


def ask(client: RewardClient, start: int, size: int, model: str | None = None) -> RewardResponse:
    texts = [TEXTS[(start + place) % len(TEXTS)] for place in range(size)]
    samples = [RewardSample(prompt="Say it.", response=text) for text in texts]
    return client.score(RewardRequest(samples=samples, model=model))


def test_a_hundred_swaps_under_load(
    base: LanguageModel, store: ArtifactStore, serve: Serve, alone: dict[str, list[list[float]]]
) -> None:
    publish(store, base, "torn", 1, members=3)
    weights = store.root / "reward_models/torn/1/ensemble.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    ended = threading.Event()

    def load(number: int) -> Counter[str]:
        """One client: every third request names its model, the others take the default. A failure raises."""
        seen: Counter[str] = Counter()
        with RewardClient(server.url, KEY, retries=NO_RETRIES) as client:
            for turn in count(number):
                if ended.is_set():
                    return seen
                named = TURNS[turn % 2] if turn % 3 == 0 else None
                answer = ask(client, turn, 1 + turn % 7, named)
                assert named in (None, answer.model)
                seen[check(answer, turn, 1 + turn % 7, alone)] += named is None
        raise AssertionError("it counts for ever")

    with (
        serve(RLHF_REWARD_MODEL=TURNS[1]) as server,
        ThreadPoolExecutor(CLIENTS) as threads,
        RewardClient(server.url, KEY, retries=NO_RETRIES) as operator,
    ):
        clients = [threads.submit(load, number) for number in range(CLIENTS)]
        try:
            for swap in range(SWAPS):
                old, new = TURNS[swap % 2 - 1], TURNS[swap % 2]
                loaded = operator.load(new)
                assert (loaded.default, loaded.replaced) == (new, old)
                # Whoever asks once the load has answered gets the new one.
                assert check(ask(operator, swap, 2), swap, 2, alone) == new
                if swap % 10 == 0:
                    with pytest.raises(Conflict, match=r"ensemble\.safetensors of torn@1 is corrupt"):
                        operator.load("torn@1")
                    assert check(ask(operator, swap, 2), swap, 2, alone) == new
        finally:
            ended.set()
        seen = sum((client.result(60) for client in clients), Counter())
        told = operator.models()
    assert (told.default, sorted(told.loaded), told.available) == (TURNS[1], [*TURNS], [*TURNS, "torn@1"])
    # Enough of both to have met the swaps.
    assert min(seen[ref] for ref in TURNS) >= SWAPS // 2, seen
