"""Who is scaled by what, and that stopping is given its time."""

import pytest
from prometheus_client import REGISTRY

import services.policy.engine.instruments
import services.reward.instruments  # noqa: F401
from services.trainer.jobs.celery_app import ROLLOUT_QUEUE
from tests.unit.deploy.manifests import (
    DOCUMENTED,
    GPU_BOX,
    OVERLAYS,
    VARIANTS,
    environment,
    named,
    of_kind,
    render,
    workload,
    workloads,
)

LEAVING_S = 4.0
"""What a process needs beyond its own time to drain or stop: services wait 1 s for a thread twice, workers leave 1.5 s
later and spend 2 s on handing work back."""

TORCHRUN_KILLS_S = 30.0
"""After a signal, its processes: the default `death_timeout` of torch.distributed.elastic's agent."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_workers_are_scaled_by_the_work_that_redis_holds(variant: str) -> None:
    keys = {
        one["spec"]["scaleTargetRef"]["name"]: [trigger["metadata"]["listName"] for trigger in one["spec"]["triggers"]]
        for one in of_kind(render(variant), "ScaledObject")
    }
    # That these sets are the keys, and why not the queues: tests/integration/trainer/test_scaling_keys.py.
    training, evaluations = "jobs:active:learner", "jobs:active:evaluations"
    by_work = {"learner": [training], "rollout": [ROLLOUT_QUEUE, training], "evaluation": [evaluations]}
    assert keys == ({} if variant == GPU_BOX else by_work)


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
    scaled = {"policy", "reward", "learner", "rollout", "evaluation"}
    by_hand = {"vllm": {"policy"}, GPU_BOX: {"learner", "rollout", "evaluation"}}
    assert sorted(targets) == sorted(scaled - by_hand.get(variant, set()))
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
        if one.name not in ("policy", "reward", "learner", "rollout", "evaluation"):
            continue
        given = environment(variant, one.main)
        own = float(given.get("RLHF_DRAIN_SECONDS") or given["RLHF_STOP_GRACE_S"])
        hook = one.main.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert one.pod["terminationGracePeriodSeconds"] >= own + float(hook[1]) + LEAVING_S


@pytest.mark.parametrize("variant", VARIANTS)
def test_gpus_are_asked_for_where_they_are(variant: str) -> None:
    limits = {one.name: one.main["resources"]["limits"].get("nvidia.com/gpu") for one in workloads(variant)}
    with_gpu = {name: gpus for name, gpus in limits.items() if gpus is not None}
    one_each = {"policy": 1, "reward": 1, "learner": 1}
    assert (
        with_gpu
        == {
            "cpu": {},
            "gpu": one_each,
            "gpu-box": one_each | {"learner": 4},
            "object-store": one_each,
            "documented": one_each,
            "vllm": {"vllm": 1, "reward": 1, "learner": 1},
        }[variant]
    )
    for one in workloads(variant):
        on_node = "nvidia.com/gpu.present" in one.pod.get("nodeSelector", {})
        tolerated = any(each["key"] == "nvidia.com/gpu" for each in one.pod.get("tolerations", []))
        assert on_node == tolerated == (one.name in with_gpu)
        if one.name in with_gpu.keys() - {"vllm"}:
            assert environment(variant, one.main)["RLHF_DEVICE"] == "cuda"
            assert one.main["image"].endswith("-cuda")


@pytest.mark.parametrize("variant", VARIANTS)
def test_replicas_are_spread_over_nodes(variant: str) -> None:
    for name in ("policy", "reward", "trainer-api", "learner", "rollout", "evaluation"):
        one = workload(variant, name)
        (spread,) = one.pod["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= one.labels.items()


def test_volumes_are_shared_by_nodes_where_there_are_several() -> None:
    for variant in VARIANTS:
        claims = of_kind(render(variant), "PersistentVolumeClaim")
        modes = {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in claims}
        shared = ["ReadWriteOnce" if variant == GPU_BOX else "ReadWriteMany"]
        of_one_pod = {} if variant == DOCUMENTED else {"console": ["ReadWriteOnce"]}
        assert modes == {"store": shared, "models": shared} | of_one_pod


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_console_with_a_file_is_alone_and_ends_before_the_next_begins(variant: str) -> None:
    console = workload(variant, "console")
    database = environment(variant, console.main)["RLHF_CONSOLE_DATABASE"]
    spec = console.manifest["spec"]
    assert spec["replicas"] == 1
    if variant == DOCUMENTED:
        assert database.startswith("postgresql://")
    else:
        assert database.startswith("/data/")
        assert spec["strategy"] == {"type": "Recreate"}


def test_a_learner_of_several_processes_stops_before_torchrun_kills_it() -> None:
    learner = workload(GPU_BOX, "learner").main
    assert [*learner["command"], *learner["args"]][-3:] == ["-m", "services.trainer.worker", "learner"]
    assert float(environment(GPU_BOX, learner)["RLHF_STOP_GRACE_S"]) + LEAVING_S < TORCHRUN_KILLS_S
