from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "services" / service / "Dockerfile" for service in ("policy", "reward", "trainer")]


def shared_stages(dockerfile: Path) -> str:
    text = dockerfile.read_text()
    start, end = text.index("ARG PYTHON_IMAGE"), "COPY --link --from=lm /venv /venv\n"
    return text[start : text.index(end) + len(end)]


def test_stages_with_torch_are_the_same_so_that_they_are_built_and_stored_once() -> None:
    assert len({shared_stages(dockerfile) for dockerfile in DOCKERFILES}) == 1


def test_env_example_names_the_variables_of_the_stack_with_their_defaults() -> None:
    used = re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    shown = re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(set(used)) == sorted(shown)
