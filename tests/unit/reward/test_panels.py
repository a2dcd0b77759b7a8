"""Panels and their members without a server: what an answer, a failure and a wrong file are taken for."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest

from rlhf.clients.http import NO_RETRIES
from rlhf.contracts.errors import Conflict, ServiceError, Unavailable
from rlhf.contracts.panels import Dialect
from rlhf.contracts.reward import RewardSample, SampleFailure
from rlhf.serving.panels import read_panels, read_reference
from services.reward.model import MemberScores
from services.reward.panels.dialects import Speech
from services.reward.panels.members import RawOutcome, RawScore, Scale, ScaledMember
from services.reward.panels.panel import PanelModel
from services.reward.panels.promises import Workers, kept, then, together
from services.reward.panels.remotes import RemoteClient, RemoteScorer

SAMPLES = [RewardSample(prompt="Hi", response=text) for text in ("One.", "Two!", "Three?")]
Answer = Callable[[dict[str, Any]], httpx.Response]


class Lengths:
    """A member whose raw score is a response's number of letters."""

    def __init__(self, remote: bool = False) -> None:
        self.name, self.remote, self.seen = "lengths", remote, []

    def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
        self.seen.append(len(samples))
        return kept([RawScore(float(len(sample.response)), tokens=1) for sample in samples])


def remote(answer: Answer, dialect: Dialect = "openrlhf", **more: Any) -> RemoteScorer:
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    client = RemoteClient("http://far", retries=NO_RETRIES, transport=transport)
    options = {"model": None, "batch": 2, "connections": 1, **more}
    return RemoteScorer("member 0 of far@1", client, Speech(dialect), **options)


def ask(member: RemoteScorer) -> list[RawOutcome]:
    return member.score(SAMPLES).result(30)


def rewards(*values: object) -> httpx.Response:
    # By json.dumps, which writes NaN as other servers do.
    return httpx.Response(200, content=json.dumps({"rewards": values, "extra_logs": {}}))


def test_scores_have_the_references_mean_and_deviation() -> None:
    # Lengths 2 and 6: mean 4, deviation 2.
    reference = [RewardSample(prompt="", response=text) for text in ("ab", "abcdef")]
    member = Lengths()
    scaled = ScaledMember(member, None, reference)
    assert scaled.score(SAMPLES).result(0) == [RawScore(value, tokens=1) for value in (0.0, 0.0, 1.0)]
    assert scaled.scale == Scale(4.0, 2.0)
    scaled.score(SAMPLES)
    # The reference is scored once, with the first samples.
    assert member.seen == [5, 3]


def test_a_reference_without_spread_is_refused() -> None:
    with pytest.raises(Conflict, match="scores all 2 samples of the panel's reference 2; give"):
        ScaledMember(Lengths(), None, [RewardSample(prompt="", response="ab")] * 2).fit()


def test_a_sample_needs_every_member() -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        return rewards(*[float("nan") if "Two" in query else 1.0 for query in body["query"]])

    members = [ScaledMember(Lengths(), Scale(4, 1), []), ScaledMember(remote(answer), Scale(0, 2), [])]
    panel = PanelModel(members, lambda sample: sample)
    odd = [RewardSample(prompt="Hi", response=text) for text in ("", "\ud800")]
    one, two, three, *odd_ones = panel.score([*SAMPLES, *odd]).result(30)
    assert (one, three) == (MemberScores([0.0, 0.5], False, 1), MemberScores([2.0, 0.5], False, 1))
    assert isinstance(two, SampleFailure)
    assert (two.error_type, two.error) == (
        "scoring",
        "member 0 of far@1 gave nan, which is no score; look into that model",
    )
    assert ["empty" in odd_ones[0].error, "surrogate" in odd_ones[1].error] == [True, True]
    assert panel.score([]).result(0) == []


def test_remote_members_work_while_local_ones_compute() -> None:
    begun = threading.Event()

    def answer(body: dict[str, Any]) -> httpx.Response:
        begun.set()
        return rewards(*[1.0 for _ in body["query"]])

    class Waits(Lengths):
        def score(self, samples: Sequence[RewardSample]) -> Future[list[RawOutcome]]:
            assert begun.wait(30)
            return super().score(samples)

    members = [ScaledMember(Waits(), Scale(0, 1), []), ScaledMember(remote(answer), Scale(0, 1), [])]
    outcomes = PanelModel(members, lambda sample: sample).score(SAMPLES).result(30)
    assert [each.members for each in outcomes] == [[4.0, 1.0], [4.0, 1.0], [6.0, 1.0]]


def test_a_refusal_of_several_is_asked_about_each_alone() -> None:
    sizes = []

    def answer(body: dict[str, Any]) -> httpx.Response:
        sizes.append(len(body["query"]))
        broken = any("Two" in query for query in body["query"])
        return httpx.Response(500, text="CUDA error") if broken else rewards(*[0.0 for _ in body["query"]])

    one, two, three = ask(remote(answer))
    assert (one, three) == (RawScore(0.0), RawScore(0.0))
    assert isinstance(two, SampleFailure)
    assert two.error_type == "scoring"
    assert "500 with 'CUDA error'; see what that server says" in two.error
    assert sizes == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(500, text="broken"), "500"),
        (httpx.Response(413, json={"error": "too long", "error_type": "Validation"}), "too long"),
        (httpx.Response(200, text="<html>"), "is not of the dialect openrlhf"),
        (httpx.Response(200, json={"rewards": ["good"]}), "is not of the dialect openrlhf"),
        (httpx.Response(200, json={"rewards": [1.0, 2.0, 3.0, 4.0]}), "gave 4 scores for 1 samples"),
        (httpx.Response(200, json={"rewards": [None]}), "null, which is no score"),
    ],
)
def test_what_is_no_score_is_a_failure_and_never_zero(answer: httpx.Response, said: str) -> None:
    for outcome in ask(remote(lambda body: httpx.Response(answer.status_code, content=answer.content))):
        assert isinstance(outcome, SampleFailure)
        assert outcome.error_type == "scoring"
        assert said in outcome.error


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (503, Unavailable, "503"),
        (429, Unavailable, "429"),
        (401, Conflict, "correct its entry in the file of RLHF_REWARD_PANELS"),
        (404, Conflict, "/get_reward answered 404"),
    ],
)
def test_a_server_that_answers_nobody_fails_the_request(status: int, kind: type[ServiceError], said: str) -> None:
    with pytest.raises(kind, match=said) as failed:
        ask(remote(lambda body: httpx.Response(status, text="no")))
    assert failed.value.message.startswith("member 0 of far@1: ")


def test_a_server_that_hangs_is_unavailable() -> None:
    def hang(body: dict[str, Any]) -> httpx.Response:
        raise httpx.ReadTimeout("late")

    with pytest.raises(Unavailable, match="did not answer POST /get_reward within"):
        ask(remote(hang))


@pytest.mark.parametrize(
    ("speech", "answer", "expected"),
    [
        (Speech("vllm_classify", 1), {"data": [{"index": 0, "probs": [0.1, 0.9]}]}, [0.9]),
        (Speech("vllm_score"), {"data": [{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}]}, [1.0, 2.0]),
        (Speech("tei_predict", "good"), [[{"label": "bad", "score": 3}, {"label": "good", "score": -3}]], [-3.0]),
    ],
)
def test_the_score_is_found_by_index_and_label(speech: Speech, answer: Any, expected: list[float]) -> None:
    assert speech.read(json.dumps(answer).encode()) == [RawScore(value) for value in expected]


def test_several_outputs_need_a_label() -> None:
    failed = ask(
        remote(lambda body: httpx.Response(200, json={"data": [{"index": 0, "probs": [1, 2]}]}), "vllm_classify")
    )
    assert "the server gave 2 outputs (0, 1) and label=None is none of them; give the member one" in failed[0].error


def test_a_native_server_tells_failures_and_cuts_itself() -> None:
    results = [{"reward": 0.5, "truncated": True, "new": 1}, {"error": "empty", "error_type": "scoring"}]
    read = Speech("native").read(json.dumps({"results": results}).encode())
    assert read == [RawScore(0.5, truncated=True), SampleFailure(error="empty", error_type="scoring")]


def test_the_first_failure_ends_all_and_what_has_not_begun_is_left_out() -> None:
    parts: list[Future[int]] = [Future(), Future()]
    whole = then(together(parts), sum)
    parts[1].set_exception(Unavailable("gone"))
    with pytest.raises(Unavailable):
        whole.result(0)
    assert parts[0].cancelled()
    workers = Workers("test", 1)
    assert together([workers.submit(abs, -1), workers.submit(abs, -2)]).result(30) == [1, 2]


CLASSIFIER = {"kind": "classifier", "model": "m", "mean": 0, "std": 1}
REMOTE = {"kind": "remote", "url": "http://far:1", "dialect": "native", "mean": 0, "std": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ({"guards": {"members": [CLASSIFIER]}}, "guards: String should match pattern"),
        ({"g@1": {"members": []}}, "g@1.members: List should have at least 1 item"),
        ({"g@1": {"members": [{**CLASSIFIER, "kind": "clasifier"}]}}, "g@1.members.0: Input tag 'clasifier'"),
        ({"g@1": {"members": [{**CLASSIFIER, "lbl": 1}]}}, "g@1.members.0.lbl: unknown key; remove it"),
        ({"g@1": {"members": [{**CLASSIFIER, "std": 0}]}}, "g@1.members.0.std: Input should be greater than 0 (got 0)"),
        ({"g@1": {"members": [{**CLASSIFIER, "std": None}]}}, "g@1.members.0: mean=0.0 and std=None make no scale"),
        ({"g@1": {"members": [{"kind": "classifier", "model": "m"}]}}, "g@1: members.0 has neither mean and std nor"),
        ({"g@1": {"members": [{**REMOTE, "url": "ftp://far"}]}}, "g@1.members.0.url: String should match"),
        ({"g@1": {"members": [{**REMOTE, "url": "http://me:secret@far"}]}}, "(got 'http://...@far')"),
        ({"g@1": {"members": [{**REMOTE, "dialect": "tgi"}]}}, "g@1.members.0.dialect: Input should be 'native', "),
        ({"g@1": {"members": [{**REMOTE, "label": 1}]}}, "label=1 with dialect=native, which takes no label"),
        (
            {"g@1": {"members": [{**REMOTE, "tokenizer": "t"}]}},
            "tokenizer='t' with dialect=native, which sends messages",
        ),
        ({"g@1": {"members": [{**REMOTE, "api_key_env": "A", "api_key_file": "b"}]}}, "are both set; keep one"),
    ],
)
def test_a_wrong_file_is_refused_by_file_key_and_value(tmp_path: Path, text: Any, said: str) -> None:
    path = tmp_path / "panels.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(ValueError, match="RLHF_REWARD_PANELS") as refused:
        read_panels(path)
    assert f"RLHF_REWARD_PANELS: {path}: " in str(refused.value)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent cannot be read .No such file.*give the path of a JSON file"):
        read_panels(tmp_path / "absent")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"prompt": "a", "response": "b"}\n\n{"prompt": "a"}', "line 3: response: Field required"),
        ('{"prompt": "a", "response": "b"}\n', "has 1 samples, which have no spread; give 2 or more"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_reference_is_refused_by_its_line(tmp_path: Path, lines: str | None, said: str) -> None:
    path, file = tmp_path / "panels.json", tmp_path / "reference.jsonl"
    if lines is not None:
        file.write_text(lines)
    path.write_text(json.dumps({"g@1": {"members": [{"kind": "classifier", "model": "m"}], "reference": str(file)}}))
    with pytest.raises(ValueError, match=rf"^g@1\.reference {file}.*{said}"):
        read_reference("g@1", read_panels(path)["g@1"])


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", (Path(__file__).parents[3] / "docs/reward.md").read_text(), re.DOTALL)
    path = tmp_path / "panels.json"
    path.write_text(text)
    assert [member.kind for member in read_panels(path)["guards@1"].members] == ["classifier"] * 2 + ["remote"] * 2
