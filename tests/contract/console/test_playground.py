"""The playground, before tiny fakes of policy and reward."""

import re

from fastapi.testclient import TestClient

from tests.contract.console.conftest import Fakes, csrf_of

EVIL = "<script>alert(1)</script>"


def ask(browser: TestClient, **form: str):
    csrf = csrf_of(browser.get("/playground"))
    return browser.post("/playground", data={"csrf": csrf, "prompt": "Hi", "max_tokens": "5", **form})


def test_two_models_answer_the_same_request(browser: TestClient, fakes: Fakes) -> None:
    page = ask(browser, right="ppo-1@3", reward_model="rm@1", temperature="0.5").text
    left, right = sorted(fakes.asked, key=lambda body: body["model"])
    assert (left["model"], right["model"]) == ("base", "ppo-1@3")
    assert {**left, "model": ""} == {**right, "model": ""}, "the same seed too"
    assert (left["max_tokens"], left["temperature"], left["messages"]) == (5, 0.5, [{"role": "user", "content": "Hi"}])
    assert f"seed {left['seed']}" in page
    # exp(-0.5) = 0.6065
    assert page.count('title="log-probability −0.5 (60.7 %)">Hello</span>') == 2
    for name, value in (("mean", "1.5"), ("uncertainty", "0.25"), ("member 1", "1.25"), ("member 2", "1.75")):
        assert page.count(f'<tr><th scope="row">{name}</th><td class="number">{value}</td></tr>') == 2


def test_what_repeats_is_marked(browser: TestClient, fakes: Fakes) -> None:
    fakes.text = "a cat sat and a cat sat"
    page = ask(browser).text
    side = page.split("<article")[1]
    words = re.findall(r'<span class="token p0( repeated)?"[^>]*>([^<]*)</span>', side)
    assert [(bool(mark), word.strip()) for mark, word in words] == [
        (True, "a"),
        (True, "cat"),
        (True, "sat"),
        (False, "and"),
        (True, "a"),
        (True, "cat"),
        (True, "sat"),
    ]


def test_a_model_cannot_write_markup(browser: TestClient, fakes: Fakes) -> None:
    fakes.text = EVIL
    page = ask(browser, prompt=EVIL).text
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_one_model_that_is_missing_leaves_the_other(browser: TestClient) -> None:
    page = ask(browser, left="gone@1")
    assert page.status_code == 200
    assert "adapter gone@1 does not exist" in page.text
    assert "Hello" in page.text


def test_wrong_settings_stand_beside_their_fields(browser: TestClient, fakes: Fakes) -> None:
    page = ask(browser, prompt=" ", left="../x", temperature="9")
    assert page.status_code == 422
    for name in ("prompt", "left", "temperature"):
        assert f'id="{name}-error"' in page.text
    assert fakes.asked == []
