"""The scorer's thread and its reward models, without HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rlhf.artifacts.store import ArtifactStore
from rlhf.contracts.errors import Conflict, InternalError, NotFound, Overloaded, Unavailable
from rlhf.contracts.reward import RewardSample, SampleFailure
from rlhf.lm.exchanges import encode_exchange
from rlhf.lm.loading import LanguageModel, load_language_model
from services.reward.bundles import Bundle
from services.reward.library import Library
from services.reward.model import MemberScores
from services.reward.scorer import Scorer
from tests.contract.reward.conftest import publish
from tests.tiny_models import save_tiny_llama

SAMPLE = RewardSample(prompt="Hi", response="Hello.")


class HeldLibrary(Library):
    """A library that waits before it gives a reward model, so that requests can pile up."""

    gate: threading.Event
    asked: list[str]

    def get(self, ref: str) -> Bundle:
        self.asked.append(ref)
        assert self.gate.wait(30)
        model = super().get(ref)
        assert isinstance(model, Bundle)
        return model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_language_model(str(save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")))


@pytest.fixture(scope="module")
def store(base: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    store = ArtifactStore(tmp_path_factory.mktemp("store"))
    for version in (1, 2, 3):
        publish(store, base, "rm", version, members=2)
    return store


@pytest.fixture
def library(base: LanguageModel, store: ArtifactStore) -> HeldLibrary:
    library = HeldLibrary(store, base, kept=2, token_budget=256)
    library.gate, library.asked = threading.Event(), []
    library.gate.set()
    return library


@pytest.fixture
def scorer(base: LanguageModel, library: HeldLibrary) -> Iterator[Scorer]:
    scorer = Scorer(base, library, max_queue=3, threads=1)
    scorer.start()
    yield scorer
    library.gate.set()
    scorer.stop(10.0)
    assert not scorer.alive


def test_requests_for_one_model_are_scored_together_in_their_own_order(scorer: Scorer, library: HeldLibrary) -> None:
    library.gate.clear()
    texts = ["One.", "Two!", "Three?", "Four", "Five."]
    first = scorer.submit("rm@1", [SAMPLE])
    while not library.asked:
        pass
    others = [
        scorer.submit("rm@1", [RewardSample(prompt="Hi", response=text) for text in texts]),
        scorer.submit("rm@2", [SAMPLE]),
        scorer.submit("rm@1", [SAMPLE]),
    ]
    library.gate.set()
    (alone,), many, (other,), (again,) = (request.outcomes.result(30) for request in (first, *others))
    assert library.asked == ["rm@1", "rm@1", "rm@2"]
    assert isinstance(alone, MemberScores)
    assert isinstance(again, MemberScores)
    assert isinstance(other, MemberScores)
    assert again.members == pytest.approx(alone.members, abs=1e-5)
    assert other.members != pytest.approx(alone.members, abs=1e-3)
    ensemble = library.get("rm@1").ensemble
    for text, outcome in zip(texts, many, strict=True):
        exchange = encode_exchange(scorer.base.tokenizer, "Hi", text, max_length=128)
        assert isinstance(outcome, MemberScores)
        assert outcome.members == pytest.approx(ensemble.score([exchange], token_budget=256)[0].tolist(), abs=1e-5)


def test_a_full_queue_refuses_and_says_when_to_come_back(scorer: Scorer, library: HeldLibrary) -> None:
    library.gate.clear()
    running = scorer.submit("rm@1", [SAMPLE])
    while not library.asked:
        pass
    waiting = [scorer.submit("rm@1", [SAMPLE]) for _ in range(3)]
    with pytest.raises(Overloaded, match=r"3 requests are waiting, the limit is 3.*RLHF_MAX_QUEUE") as refused:
        scorer.submit("rm@1", [SAMPLE])
    assert refused.value.retry_after
    library.gate.set()
    assert all(len(request.outcomes.result(30)) == 1 for request in (running, *waiting))


def test_one_requests_unknown_model_is_not_anothers_failure(scorer: Scorer) -> None:
    wrong, right = scorer.submit("rm@9", [SAMPLE]), scorer.submit("rm@1", [SAMPLE])
    with pytest.raises(NotFound):
        wrong.outcomes.result(30)
    assert isinstance(right.outcomes.result(30)[0], MemberScores)


def test_samples_that_cannot_be_scored_leave_the_others_alone(scorer: Scorer) -> None:
    odd = [RewardSample(prompt="Hi", response=text) for text in ("", "x" * 200, "\ud800")]
    outcomes = scorer.submit("rm@1", [SAMPLE, *odd, SAMPLE]).outcomes.result(30)
    assert [type(outcome) for outcome in outcomes] == [MemberScores, *[SampleFailure] * 3, MemberScores]


def test_a_score_that_is_no_number_is_a_failure_and_never_zero(scorer: Scorer, library: HeldLibrary) -> None:
    with torch.no_grad():
        library.get("rm@1").ensemble.heads[1].fill_(float("nan"))
    (outcome,) = scorer.submit("rm@1", [SAMPLE]).outcomes.result(30)
    assert isinstance(outcome, SampleFailure)
    assert outcome.error_type == "scoring"
    assert "member 1 of rm@1 gave nan" in outcome.error


def test_the_least_used_model_makes_room(library: HeldLibrary) -> None:
    for ref in ("rm@1", "rm@2", "rm@1", "rm@3"):
        library.get(ref)
    assert library.loaded == ["rm@1", "rm@3"]


def test_a_model_that_fails_to_load_leaves_the_served_one(
    scorer: Scorer, store: ArtifactStore, base: LanguageModel
) -> None:
    before = scorer.submit("rm@1", [SAMPLE]).outcomes.result(30)
    publish(store, base, "torn", 1, members=1)
    torn: Path = store.root / "reward_models/torn/1/ensemble.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(Conflict, match="sha256"):
        scorer.submit("torn@1", [SAMPLE]).outcomes.result(30)
    assert scorer.submit("rm@1", [SAMPLE]).outcomes.result(30) == before
    assert scorer.models == ["rm@1"]


def test_a_call_comes_after_the_batch_that_runs_and_before_the_requests_that_wait(
    scorer: Scorer, library: HeldLibrary
) -> None:
    library.gate.clear()
    running = scorer.submit("rm@1", [SAMPLE])
    while not library.asked:
        pass
    waiting = scorer.submit("rm@2", [SAMPLE])
    call = scorer.call(lambda: (running.outcomes.done(), [*library.asked], threading.current_thread().name))
    assert not call.done()
    library.gate.set()
    assert call.result(30) == (True, ["rm@1"], "scorer")
    assert isinstance(waiting.outcomes.result(30)[0], MemberScores)


def test_a_call_that_fails_fails_alone(scorer: Scorer) -> None:
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        scorer.call(lambda: 1 / 0).result(30)
    with pytest.raises(NotFound):
        scorer.call(lambda: scorer.library.read("rm@9")).result(30)
    assert isinstance(scorer.submit("rm@1", [SAMPLE]).outcomes.result(30)[0], MemberScores)


def test_a_call_that_nobody_waits_for_any_more_is_not_made(scorer: Scorer, library: HeldLibrary) -> None:
    library.gate.clear()
    running, made = scorer.submit("rm@1", [SAMPLE]), []
    while not library.asked:
        pass
    assert scorer.call(lambda: made.append("cancelled")).cancel()
    last = scorer.call(lambda: made.append("last"))
    library.gate.set()
    last.result(30)
    assert made == ["last"]
    assert len(running.outcomes.result(30)) == 1


def test_a_bundle_is_replaced_by_one_of_its_name_only_when_it_is_sound(
    scorer: Scorer, library: HeldLibrary, store: ArtifactStore, base: LanguageModel
) -> None:
    before = library.get("rm@1")
    candidate = library.read("rm@1")
    assert candidate is not None
    with torch.no_grad():
        candidate.ensemble.heads.add_(1.0)
    with pytest.raises(Conflict, match="scores its probe differently"):
        library.adopt("rm@1", candidate)
    assert library.get("rm@1") is before
    sound = library.read("rm@1")
    assert sound is not None
    library.adopt("rm@1", sound)
    assert library.get("rm@1") is not before
    assert library.get("rm@1").ensemble is sound.ensemble
    for ref in ("rm@2", "rm@3"):
        library.get(ref)
    assert library.loaded == ["rm@2", "rm@3"]


def test_draining_finishes_what_it_has_and_refuses_the_rest(scorer: Scorer, library: HeldLibrary) -> None:
    library.gate.clear()
    request = scorer.submit("rm@1", [SAMPLE])
    assert not scorer.drain(0.05)
    with pytest.raises(Unavailable, match="stopping"):
        scorer.submit("rm@1", [SAMPLE])
    library.gate.set()
    assert scorer.drain(30)
    assert len(request.outcomes.result(0)) == 1


def test_stopping_answers_those_that_wait(scorer: Scorer, library: HeldLibrary) -> None:
    library.gate.clear()
    requests = [scorer.submit("rm@1", [SAMPLE]) for _ in range(2)]
    while not library.asked:
        pass
    call = scorer.call(lambda: None)
    scorer.stop(0.05)
    for promise in (*(request.outcomes for request in requests), call):
        with pytest.raises(Unavailable, match="send it again"):
            promise.result(1)
    with pytest.raises(Unavailable, match="stopping"):
        scorer.call(lambda: None)
