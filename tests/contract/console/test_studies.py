"""Studies: made from a file or from two models, and what their judgements say."""

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.console.store import studies
from tests.contract.console.conftest import Fakes, csrf_of
from tests.contract.console.judging import judge_all, make_study, pair, upload

EVIL = "<script>alert(1)</script>"
Newcomer = Callable[[str], TestClient]


def stored(app: FastAPI, study: int) -> list:
    with app.state.store.reading() as session:
        return studies.pairs_of(session, study)


def test_a_file_becomes_a_study(app: FastAPI, browser: TestClient) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Straße? 🎈"}]
    rows = [pair(turns, "a\nb", "ü"), pair("P", gold="both_bad"), pair("Q", "same", "same")]
    study = make_study(browser, rows)
    kept = sorted(stored(app, study), key=lambda each: each.gold is not None)
    assert [(each.prompt, each.response_a, each.response_b) for each in kept] == [
        (turns, "a\nb", "ü"),
        ("P", "ay", "bee"),
    ]
    assert [each.gold for each in kept] == [None, "both_bad"]
    assert sorted(each.position for each in kept) == [0, 1]
    page = browser.get(f"/studies/{study}").text
    assert "1 of them check attention" in page
    assert "1 more had the same text twice" in page
    assert f'href="/studies/{study}"' in browser.get("/studies").text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file has 0 pairs"),
        (b'{"prompt": "P", "responses": ["a", "b"], "policies": ["x", "y"]}\n\n{"prompt": 1}\n', "line 3: "),
        (b'{"prompt": "P", "responses": ["a"], "policies": ["x", "y"]}', "responses.1: Field required"),
        (b'{"prompt": "P", "responses": ["a", "b"], "policies": ["x", "y"], "gold": "c"}', "(got &#39;c&#39;)"),
        (b'{"prompt": "\\u0000", "responses": ["a", "b"], "policies": ["x", "y"]}', "U+0000"),
        (b'{"prompt": "P", "responses": ["a", "a"], "policies": ["x", "y"]}', "there is nothing to judge"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"<script>alert(1)</script>", "line 1: Invalid JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(browser: TestClient, content: bytes, told: str) -> None:
    answer = upload(browser, content)
    assert answer.status_code == 422
    assert told in answer.text
    assert EVIL not in answer.text
    # The other form is as it was.
    assert 'name="temperature" value="0.7"' in answer.text
    assert "no studies yet" in browser.get("/studies").text


def test_an_upload_needs_its_sessions_token(browser: TestClient) -> None:
    answer = browser.post("/studies/upload", data={"csrf": "x"}, files={"file": ("p", b"{}")})
    assert answer.status_code == 403


def test_a_form_sent_twice_makes_one_study(browser: TestClient) -> None:
    page = browser.get("/studies/new")
    key = re.search(r'name="key" value="([^"]+)"', page.text).group(1)
    first, second = (upload(browser, [pair("P")], key=key).headers["location"] for _ in range(2))
    assert first == second


def test_the_ensembles_disagreement_orders_the_pairs(app: FastAPI, browser: TestClient, fakes: Fakes) -> None:
    # Of a pair (a, bee) the members see the differences a - bee: all alike, apart, and further apart.
    fakes.members = {"bee": [0, 0], "sure": [3, 3], "apart": [-1, 1], "far": [-3, 3]}
    rows = [pair(text, text) for text in ("sure", "far", "apart")]
    study = make_study(browser, rows, ordering="disagreement", reward_model="rm@1")
    kept = stored(app, study)
    assert [each.prompt for each in kept] == ["far", "apart", "sure"]
    assert kept[2].disagreement == pytest.approx(0, abs=1e-9)
    # σ(±1) = 0.7311, 0.2689: entropy of their mean, ln 2, minus their mean entropy, 0.5822.
    assert kept[1].disagreement == pytest.approx(0.6931 - 0.5822, abs=1e-4)
    assert (kept[0].score_a, kept[0].uncertainty_b) == (1.5, 0.25)
    without = upload(browser, rows, ordering="disagreement")
    assert without.status_code == 422
    assert "name one" in without.text


def generate(browser: TestClient, **form: str):
    page = browser.get("/studies/new")
    key = re.search(r'name="key" value="([^"]+)"', page.text).group(1)
    fields = {"csrf": csrf_of(page), "key": key, "name": "N", "ordering": "random", "prompts": "One?\n\n Alike? \nTwo?"}
    return browser.post("/studies/generate", data=fields | {"blind": "on", "max_new_tokens": "5", **form})


def test_two_models_answer_and_become_a_study(app: FastAPI, browser: TestClient, fakes: Fakes) -> None:
    answer = generate(browser, right="ppo-1@3", temperature="0.5", reward_model="rm@1")
    kept = stored(app, int(answer.headers["location"].removeprefix("/studies/")))
    assert sorted((each.prompt, each.response_a, each.policy_a, each.response_b, each.policy_b) for each in kept) == [
        ("One?", "One? base", "base", "One? ppo-1@3", "ppo-1@3"),
        ("Two?", "Two? base", "base", "Two? ppo-1@3", "ppo-1@3"),
    ]
    assert {each.score_a for each in kept} == {1.5}
    left, right = (body["sampling"] for body in fakes.asked)
    assert left == right
    assert (left["max_new_tokens"], left["temperature"]) == (5, 0.5)
    assert "1 more had the same text twice" in browser.get(answer.headers["location"]).text


def test_two_samples_of_one_model_are_drawn_apart(browser: TestClient, fakes: Fakes) -> None:
    generate(browser, left="ppo-1@3", right="ppo-1@3", seed="7")
    assert [body["sampling"]["seed"] for body in fakes.asked] == [7, 8]


def test_what_is_wrong_with_the_form_is_told_before_a_model_is_asked(browser: TestClient, fakes: Fakes) -> None:
    for wrong in (
        {"prompts": " \n"},
        {"prompts": "P\n" * 201},
        {"left": "../x"},
        {"max_new_tokens": "0"},
        {"name": " "},
        {"ordering": "best"},
        {"ordering": "disagreement"},
        {"reward_model": EVIL},
    ):
        answer = generate(browser, **wrong)
        assert answer.status_code == 422, wrong
        assert 'role="alert"' in answer.text
        assert EVIL not in answer.text
    assert fakes.asked == []


def test_the_results_of_a_study(browser: TestClient, newcomer: Newcomer) -> None:
    study = make_study(browser, [pair(f"P{number}") for number in range(4)] + [pair("G", gold="a")])
    assert "Nobody has judged" in browser.get(f"/studies/{study}").text
    judge_all(newcomer("Anna"), study, {"P0": "ay", "P1": "ay", "P2": "bee", "P3": "bee", "G": "ay"})
    judge_all(newcomer("Bert"), study, {"P0": "ay", "P1": "bee", "P2": "bee", "P3": "tie", "G": "bee"})
    page = " ".join(browser.get(f"/studies/{study}").text.split())
    for name, right in (("Anna", 1), ("Bert", 0)):
        assert f'{name}</th><td class="number">5 of 5</td><td class="number">{right} of 1</td>' in page
    # They agree on 2 of 4. Anna: 2 a, 2 b; Bert: 1 a, 2 b, 1 tie. p_e = (2·1 + 2·2) / 16 = 3/8.
    # κ = (1/2 - 3/8) / (5/8) = 1/5.
    assert 'Anna, Bert</th><td class="number">4</td><td class="number">0.2</td>' in page
    # Points of base: 1, 1/2, 0, 1/4: mean 7/16.
    assert re.search(r'base</th><td class="wrap">ppo-1@3</td><td class="number">0.4375</td>', page)
    # Strengths are ±½ ln odds, with a tenth of a tie more: (1.75 + 0.05) / (2.25 + 0.05); ½ ln = -0.1226.
    assert re.search(r'ppo-1@3</th><td class="number">0.1226</td>', page)


def test_an_unknown_study_is_a_page_that_says_so(browser: TestClient) -> None:
    for path in ("/studies/99", "/datasets/99", "/datasets/99/rows.jsonl"):
        assert browser.get(path).status_code == 404
    assert browser.post("/datasets", data={"csrf": csrf_of(browser.get("/studies")), "study": "99"}).status_code == 404
