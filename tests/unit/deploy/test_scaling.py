"""Who is scaled by what, and that stopping is given its time."""

import pytest
from prometheus_client import REGISTRY

import services.policy.engine.instruments
import services.reward.instruments  # noqa: F401
from services.trainer.jobs.celery_app import ROLLOUT_QUEUE
from tests.unit.deploy.manifests import OVERLAYS, VARIANTS, environment, named, of_kind, render, workload, workloads

LEAVING_S = 4.0
"""What a process needs beyond its own time to drain or stop: services wait 1 s for a thread twice, workers leave 1.5 s
later and spend 2 s on handing work back."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_workers_are_scaled_by_the_work_that_redis_holds(variant: str) -> None:
    keys = {
        one["spec"]["scaleTargetRef"]["name"]: [trigger["metadata"]["listName"] for trigger in one["spec"]["triggers"]]
        for one in of_kind(render(variant), "ScaledObject")
    }
    # That `jobs:active` is the key, and why not the queue: tests/integration/trainer/test_scaling_keys.py.
    assert keys == {"learner": ["jobs:active"], "rollout": [ROLLOUT_QUEUE, "jobs:active"]}


@pytest.mark.parametrize("variant", OVERLAYS)
def test_keda_asks_the_redis_that_the_services_use(variant: str) -> None:
    address = named(render(variant), "ConfigMap", "redis-for-keda")["data"]["address"]
    host, _, port = address.partition(":")
    used = environment(variant, workload(variant, "learner").main)["RLHF_REDIS_URL"]
    assert used == f"redis://{host.removesuffix('.rlhf.svc')}:{port}/0"


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_scaled_exists_and_leaves_its_number_to_the_scaler(variant: str) -> None:
    scalers = of_kind(render(variant), "HorizontalPodAutoscaler", "ScaledObject")
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    assert sorted(targets) == sorted(
        {"policy", "reward", "learner", "rollout"} - ({"policy"} if variant == "vllm" else set())
    )
    for target in targets:
        assert "replicas" not in workload(variant, target).manifest["spec"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_policy_and_reward_are_scaled_by_measures_that_exist(variant: str) -> None:
    exposed = {metric.name for metric in REGISTRY.collect()}
    for one in of_kind(render(variant), "HorizontalPodAutoscaler"):
        (metric,) = one["spec"]["metrics"]
        if metric["type"] == "Pods":
            assert metric["pods"]["metric"]["name"] in exposed
        else:
            assert metric["resource"]["name"] == "cpu"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_that_stops_has_the_time_that_its_process_takes(variant: str) -> None:
    for one in workloads(variant):
        if one.name not in ("policy", "reward", "learner", "rollout"):
            continue
        given = environment(variant, one.main)
        own = float(given.get("RLHF_DRAIN_SECONDS") or given["RLHF_STOP_GRACE_S"])
        hook = one.main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert one.pod["terminationGracePeriodSeconds"] >= own + float(hook[1]) + LEAVING_S


@pytest.mark.parametrize("variant", VARIANTS)
def test_gpus_are_asked_for_where_they_are(variant: str) -> None:
    with_gpu = {one.name for one in workloads(variant) if "nvidia.com/gpu" in one.main["resources"]["limits"]}
    expected = {
        "cpu": set(),
        "gpu": {"policy", "reward", "learner"},
        "documented": {"policy", "reward", "learner"},
        "vllm": {"vllm", "reward", "learner"},
    }
    assert with_gpu == expected[variant]
    for one in workloads(variant):
        on_node = "nvidia.com/gpu.present" in one.pod.get("nodeSelector", {})
        tolerated = any(each["key"] == "nvidia.com/gpu" for each in one.pod.get("tolerations", []))
        assert on_node == tolerated == (one.name in with_gpu)
        if one.name in with_gpu - {"vllm"}:
            assert environment(variant, one.main)["RLHF_DEVICE"] == "cuda"
            assert one.main["image"].endswith("-cuda")


@pytest.mark.parametrize("variant", VARIANTS)
def test_replicas_are_spread_over_nodes(variant: str) -> None:
    for name in ("policy", "reward", "trainer-api", "learner", "rollout"):
        one = workload(variant, name)
        (spread,) = one.pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= one.labels.items()
