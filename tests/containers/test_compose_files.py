"""The Compose file with each of its overrides, as Compose itself reads them. Nothing is started."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.containers.stack import LONG_RUNNING, ROOT

pytestmark = pytest.mark.containers

OVERRIDES = sorted(path.stem for path in (ROOT / "deploy" / "compose").glob("*.yml"))
COMBINATIONS = [
    (),
    *((name,) for name in OVERRIDES if name != "grafana"),
    ("monitoring", "grafana"),
    ("gpu", "vllm", "monitoring", "grafana", "flower"),
    ("gpu", "tgi", "monitoring", "flower"),
]
NEEDED = {
    "TORCH": "torch==2.13.0+cu130",
    "TORCH_OPTIONS": "--index-url https://index.example/cu130",
    "VLLM_IMAGE": "vllm:1",
    "TGI_IMAGE": "tgi:1",
    "GRAFANA_IMAGE": "grafana:1",
}
NEEDS = {"gpu": "TORCH", "vllm": "VLLM_IMAGE", "tgi": "TGI_IMAGE", "grafana": "GRAFANA_IMAGE"}


def read(names: tuple[str, ...], **settings: str) -> subprocess.CompletedProcess[str]:
    files = ["docker-compose.yml", *(f"deploy/compose/{name}.yml" for name in names)]
    command = ["docker", "compose", *(part for file in files for part in ("-f", file))]
    environment = {"PATH": os.environ["PATH"], "COMPOSE_DISABLE_ENV_FILE": "1", **settings}
    command += ["--profile", "*", "config", "--format", "json"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_every_combination_is_sound_and_locked_down(names: tuple[str, ...]) -> None:
    done = read(names, **NEEDED)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    assert set(LONG_RUNNING) <= set(services)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert not service.get("privileged"), name
        # Servers of others may write where their image wants.
        assert service.get("read_only") or name in ("vllm", "tgi"), name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        # What can be scaled publishes nothing: two replicas cannot have one port.
        assert not service.get("ports") or name in ("front", "prometheus", "grafana", "flower"), name


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_the_user_must_name_is_asked_for(name: str) -> None:
    names = ("monitoring", name) if name == "grafana" else (name,)
    done = read(names, **{k: v for k, v in NEEDED.items() if k != NEEDS[name]})
    assert done.returncode != 0
    assert f"{NEEDS[name]} is missing a value: set it to" in done.stderr


def test_backend_and_panels_reach_the_services_only_when_they_are_set() -> None:
    def environments(**settings: str) -> dict[str, dict[str, Any]]:
        return {
            name: s.get("environment", {}) for name, s in json.loads(read((), **settings).stdout)["services"].items()
        }

    without = environments()
    # Null: Compose leaves the variable out of the container, where an empty text would be a wrong value.
    assert without["policy"]["RLHF_BACKEND"] is without["reward"]["RLHF_REWARD_PANELS"] is None
    given = {"RLHF_BACKEND": "vllm", "RLHF_BACKEND_URL": "http://gpu:8000", "RLHF_REWARD_PANELS": "/panels/p.json"}
    seen = environments(**given)
    assert (seen["policy"]["RLHF_BACKEND"], seen["policy"]["RLHF_BACKEND_URL"]) == ("vllm", "http://gpu:8000")
    assert seen["reward"]["RLHF_REWARD_PANELS"] == seen["trainer-api"]["RLHF_REWARD_PANELS"] == "/panels/p.json"
