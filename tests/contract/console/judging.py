"""What the tests of annotating, studies and datasets do in common."""

from __future__ import annotations

import json
import re

import httpx
from fastapi.testclient import TestClient

from tests.contract.console.conftest import csrf_of

POLICIES = ("base", "ppo-1@3")


def pair(prompt: str, a: str = "ay", b: str = "bee", **more: object) -> dict:
    return {"prompt": prompt, "responses": [a, b], "policies": list(POLICIES), **more}


def upload(admin: TestClient, pairs: list[dict] | bytes, **form: str) -> httpx.Response:
    page = admin.get("/studies/new")
    key = re.search(r'name="key" value="([^"]+)"', page.text).group(1)
    fields = {"csrf": csrf_of(page), "key": key, "name": "Colours", "ordering": "random", "blind": "on", **form}
    fields = {name: value for name, value in fields.items() if value}
    content = pairs if isinstance(pairs, bytes) else "\n".join(json.dumps(each) for each in pairs).encode()
    return admin.post("/studies/upload", data=fields, files={"file": ("pairs.jsonl", content)})


def make_study(admin: TestClient, pairs: list[dict], **form: str) -> int:
    answer = upload(admin, pairs, **form)
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].removeprefix("/studies/"))


def current(person: TestClient, study: int) -> str | None:
    """The address of the pair that is next; None at the end."""
    answer = person.get(f"/annotate/{study}")
    return answer.headers["location"] if answer.status_code == 303 else None


def side_of(page: httpx.Response, text: str) -> str:
    """Whether a response stands first or second. Args: text, all of it."""
    shown = re.findall(r'<article.*?<p class="said">(.*?)</p>', page.text, re.DOTALL)
    return ("first", "second")[shown.index(text)]


def judge(person: TestClient, place: str, better: str, **form: str) -> httpx.Response:
    """Judges a pair. Args: place, its address; better, the text of the better response, or tie or both_bad."""
    page = person.get(place)
    choice = better if better in ("tie", "both_bad") else side_of(page, better)
    return person.post(place, data={"csrf": csrf_of(page), "choice": choice, **form})


def judge_all(person: TestClient, study: int, better: dict[str, str]) -> None:
    """Judges every pair. Args: better, as judge's, by the prompt."""
    while (place := current(person, study)) is not None:
        prompt = re.search(r"<b>user:</b> ([^<]*)</p>", person.get(place).text).group(1)
        judge(person, place, better[prompt])
