"""Whatever a manifest names exists: settings, secrets, volumes, ports, routes."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings

from rlhf.serving.service import OPEN_PATHS
from services.console.settings import ConsoleSettings
from services.policy.settings import PolicySettings
from services.reward.settings import RewardSettings
from services.trainer.settings import ApiSettings, EvaluationSettings, LearnerSettings, RolloutSettings
from tests.unit.deploy.flows import selects
from tests.unit.deploy.manifests import (
    OBJECT_STORE,
    ROOT,
    VARIANTS,
    environment,
    named,
    of_kind,
    render,
    services,
    workload,
    workloads,
)

SETTINGS: dict[str, type[BaseSettings]] = {
    "policy": PolicySettings,
    "reward": RewardSettings,
    "trainer-api": ApiSettings,
    "learner": LearnerSettings,
    "rollout": RolloutSettings,
    "evaluation": EvaluationSettings,
    "console": ConsoleSettings,
}
SECRETS = {
    "api-key": "api_key",
    "redis-password": "redis_password",
    "console-database": "console_database_password",
    "vllm-key": "vllm_key",
    "hub-token": "hf_token",
    "object-store": "secret_access_key",
}
"""What docs/kubernetes.md creates: secret and key."""
COPYING = ("policy", "reward", "learner", "evaluation")
"""Who reads or writes the object store."""
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def image_environment(service: str) -> dict[str, str]:
    text = (ROOT / "services" / service / "Dockerfile").read_text().replace("\\\n", " ")
    return dict(re.findall(r"\b(RLHF_\w+)=(\S+)", text))


@every_variant
@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_knows_and_accepts_its_environment(
    variant: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = workload(variant, name)
    given = environment(variant, one.main)
    known = {f"RLHF_{field.upper()}" for field in SETTINGS[name].model_fields}
    assert {setting for setting in given if setting.startswith("RLHF_")} <= known
    for key in [key for key in dict(os.environ) if key.startswith("RLHF_")]:
        monkeypatch.delenv(key)
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    dockerfile = name if name in ("policy", "reward", "console") else "trainer"
    for key, value in (image_environment(dockerfile) | given).items():
        monkeypatch.setenv(key, str(secret) if key.endswith("_FILE") else value)
    settings: Any = SETTINGS[name]()
    if "redis_url" in SETTINGS[name].model_fields:
        assert ":s3cret@" in settings.redis_url.get_secret_value()
    if "api_key" in SETTINGS[name].model_fields:
        assert settings.api_key.get_secret_value() == "s3cret"


@every_variant
def test_variables_that_are_not_ours_are_those_of_vllm_the_hub_and_uvicorn(variant: str) -> None:
    foreign = {
        "vllm": r"VLLM_\w+|HF_HOME|HF_HUB_OFFLINE|USER|HOME",
        "weights": "HF_HUB_OFFLINE|HF_TOKEN",
        "console": "FORWARDED_ALLOW_IPS",
    }
    if variant == OBJECT_STORE:
        foreign |= dict.fromkeys(COPYING, r"AWS_\w+")
    for one in workloads(variant):
        for container in one.containers:
            others = [name for name in environment(variant, container) if not name.startswith("RLHF_")]
            assert all(re.fullmatch(foreign.get(one.name, ""), name) for name in others)


@every_variant
def test_variables_of_commands_are_set(variant: str) -> None:
    for one in workloads(variant):
        for container in one.containers:
            used = set(re.findall(r"\$\(?(RLHF_\w+)", " ".join(container.get("args", []))))
            assert used <= set(environment(variant, container))


@every_variant
def test_secrets_are_those_of_the_docs_and_reach_only_who_reads_them(variant: str) -> None:
    for one in workloads(variant):
        mounted: set[str] = set()
        for volume in one.pod["volumes"]:
            for source in volume.get("projected", {}).get("sources", []):
                mounted.add(SECRETS[source["secret"]["name"]])
        read = {Path(value).name for value in environment(variant, one.main).values() if value.startswith("/secrets/")}
        assert mounted == (read if one.name != "redis" else {"redis_password"})
        for entry in one.main.get("env", []):
            if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
                assert SECRETS[reference["name"]] == reference["key"]


def test_the_docs_create_every_secret() -> None:
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    created = dict(re.findall(r"create secret generic (\S+) .*--from-(?:file|literal)=(\w+)", document))
    assert created == SECRETS


@every_variant
def test_volumes_exist_and_are_mounted(variant: str) -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind(render(variant), "PersistentVolumeClaim")}
    writers = {"store": {"trainer-api", "learner", "evaluation"}, "models": {"weights"}, "data": {"redis", "console"}}
    if variant == OBJECT_STORE:
        writers["store"] |= {"policy", "reward"}  # each its own
    for one in workloads(variant):
        for volume in one.pod["volumes"]:
            assert "persistentVolumeClaim" not in volume or volume["persistentVolumeClaim"]["claimName"] in claims
        volumes = {volume["name"] for volume in one.pod["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in one.manifest["spec"].get("volumeClaimTemplates", [])}
        mounts = [mount for container in one.containers for mount in container.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} == volumes
        for mount in mounts:
            if mount["name"] in writers:
                assert mount.get("readOnly", False) == (one.name not in writers[mount["name"]])


def test_with_an_object_store_policy_and_reward_share_no_folder_with_the_trainer() -> None:
    for name in ("policy", "reward", "trainer-api", "learner", "evaluation"):
        one = workload(OBJECT_STORE, name)
        (store,) = [volume for volume in one.pod["volumes"] if volume["name"] == "store"]
        assert ("emptyDir" in store) == (name in ("policy", "reward"))
        given = environment(OBJECT_STORE, one.main)
        assert given.get("RLHF_STORE_REMOTE") == ("s3://rlhf/store" if name in COPYING else None)
        assert given.get("AWS_SECRET_ACCESS_KEY") == ("object-store/secret_access_key" if name in COPYING else None)


@every_variant
def test_probes_ask_routes_that_need_no_key_at_a_port_that_is_open(variant: str) -> None:
    for one in services(variant):
        ports = {port["name"]: port["containerPort"] for port in one.main["ports"]}
        assert set(ports.values()) == {6379 if one.name == "redis" else 8000}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if one.name == "redis":
                assert "redis-cli ping" in one.main[probe]["exec"]["command"][-1]
            else:
                assert one.main[probe]["httpGet"]["port"] in ports
                assert one.main[probe]["httpGet"]["path"] in OPEN_PATHS
        if one.name in ("policy", "reward", "trainer-api", "console"):
            assert one.main["readinessProbe"]["httpGet"]["path"] == "/ready"
            assert one.main["livenessProbe"]["httpGet"]["path"] == "/health"


def test_our_images_listen_where_the_manifests_say() -> None:
    for service in ("policy", "reward", "trainer", "console"):
        given = image_environment(service)
        assert (given["RLHF_PORT"], given["RLHF_METRICS_PORT"], given["RLHF_STORE"]) == ("8000", "8000", "/store")


@every_variant
def test_services_lead_to_open_ports_of_pods(variant: str) -> None:
    for service in of_kind(render(variant), "Service"):
        (one,) = [
            each for each in workloads(variant) if selects({"matchLabels": service["spec"]["selector"]}, each.labels)
        ]
        (port,) = service["spec"]["ports"]
        assert {"name": port["targetPort"], "containerPort": port["port"]} in one.main["ports"]


@every_variant
def test_addresses_are_those_of_services(variant: str) -> None:
    for one in workloads(variant):
        for value in environment(variant, one.main).values():
            for host, port in re.findall(r"^\w+://([\w.-]+):(\d+)", value):
                if host != "redis.example":
                    assert named(render(variant), "Service", host)["spec"]["ports"][0]["port"] == int(port)


def test_vllm_is_started_as_the_docs_of_the_backends_say() -> None:
    document = (ROOT / "docs" / "backends.md").read_text()
    command = re.search(r"^    (VLLM_.*?)\n\n", document, re.DOTALL | re.MULTILINE)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()
    setting, options = words[0], " ".join(words[4:])  # VLLM_...=True vllm serve MODEL --...
    vllm = workload("vllm", "vllm").main
    assert dict([setting.split("=")]).items() <= environment("vllm", vllm).items()
    flags = set(re.findall(r"--[\w-]+(?: [^-\s]\S*)?", options))
    assert {flag.replace(" ", "=") for flag in flags} <= set(vllm["args"])
    kept = PolicySettings.model_fields["backend_max_adapters"].default
    assert f"--max-cpu-loras={kept}" in vllm["args"]
