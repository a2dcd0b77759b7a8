from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "services" / service / "Dockerfile" for service in ("policy", "reward", "trainer")]
CONSOLE = ROOT / "services" / "console" / "Dockerfile"
ALL_DOCKERFILES = [*DOCKERFILES, CONSOLE, *sorted((ROOT / "deploy").rglob("Dockerfile"))]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def shared_stages(dockerfile: Path, last: str) -> str:
    text = dockerfile.read_text()
    stage = text.index(f"\nFROM {last}\n")
    return text[text.index("ARG PYTHON_IMAGE") : text.index("\n\n", stage)]


def test_stages_with_torch_are_the_same_so_that_they_are_built_and_stored_once() -> None:
    assert len({shared_stages(dockerfile, "base AS torch") for dockerfile in DOCKERFILES}) == 1


def test_the_console_begins_as_the_others_do_so_that_it_shares_what_they_have_built() -> None:
    def instructions(dockerfile: Path) -> list[str]:
        lines = shared_stages(dockerfile, "${PYTHON_IMAGE} AS project").splitlines()
        return [line for line in lines if not line.startswith("# ")]

    assert instructions(CONSOLE) == instructions(DOCKERFILES[0])


@pytest.mark.parametrize("dockerfile", ALL_DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", dockerfile], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("dockerfile", ALL_DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_are_labelled_with_the_version_of_the_project(dockerfile: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = dockerfile.read_text()
    titles = re.findall(r'image\.title="rlhf-services ([\w-]+)"', text)
    assert titles
    assert re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE) == [version] * len(titles)
    for label in ("description", "licenses", "version", "revision", "source"):
        assert text.count(f"org.opencontainers.image.{label}=") == len(titles)


def test_env_example_names_the_variables_of_the_stack_with_their_defaults() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", compose))
    passed_on = {(name, "") for name in re.findall(r"^ +(RLHF_\w+):$", compose, re.MULTILINE)}
    shown = re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(used | passed_on) == sorted(shown)


def pins(path: Path) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s\\]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locks_hold_the_versions_that_the_tests_run_with_and_a_hash_of_each(lock: Path) -> None:
    locked, tested = pins(lock), pins(ROOT / "constraints.txt")
    assert locked
    assert {name: tested.get(name) for name in locked} == locked, "make lock"
    entries = re.split(r"^(?=[\w.-]+==)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "torch" not in locked  # another file in each index: see docs/decisions/0019-images.md


def test_images_without_torch_lock_no_package_of_models() -> None:
    for name in ("api", "console", "demo", "flower", "evaluation"):
        assert not {"transformers", "safetensors", "tensorboardx", "peft"} & set(
            pins(ROOT / "requirements" / f"{name}.txt")
        )
