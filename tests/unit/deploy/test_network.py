"""The network lets through the flows of docs/architecture.md and nothing else."""

import pytest

from tests.unit.deploy.flows import Endpoint, allowed, pods

WORLD = [
    Endpoint("neighbour", (("TCP", 8000), ("TCP", 6379))),  # a pod in our namespace that is none of ours
    Endpoint("stranger", (("TCP", 8000), ("TCP", 443)), namespace="other"),
    Endpoint("client", (("TCP", 8000),), namespace="web", namespace_labels={"rlhf-services/client": "true"}),
    Endpoint("prometheus", (), namespace="mon", namespace_labels={"rlhf-services/monitoring": "true"}),
    Endpoint(
        "keda", (), {"app": "keda-operator"}, namespace="keda", namespace_labels={"kubernetes.io/metadata.name": "keda"}
    ),
    Endpoint(
        "keda-other", (), {"app": "x"}, namespace="keda", namespace_labels={"kubernetes.io/metadata.name": "keda"}
    ),
    Endpoint(
        "dns",
        (("UDP", 53), ("TCP", 53)),
        {"k8s-app": "kube-dns"},
        namespace="kube-system",
        namespace_labels={"kubernetes.io/metadata.name": "kube-system"},
    ),
    Endpoint("internet", (("TCP", 443), ("TCP", 6379)), namespace="", ip="203.0.113.7"),
    Endpoint("metadata", (("TCP", 443), ("TCP", 80)), namespace="", ip="169.254.169.254"),
    Endpoint("managed-postgresql", (("TCP", 5432), ("TCP", 443)), namespace="", ip="10.4.5.6"),
    Endpoint("managed-redis", (("TCP", 6380), ("TCP", 443)), namespace="", ip="10.1.2.3"),
]
QUEUES = ("trainer-api", "learner", "rollout", "evaluation")
NAMES = {f"{name} > dns:53" for name in (*QUEUES, "console", "weights")}
FRONT = {f"client > {name}:8000" for name in ("policy", "reward", "trainer-api", "console")}
METRICS = {f"prometheus > {name}:8000" for name in ("policy", "reward", *QUEUES, "console")}
ASKING = {f"{name} > {asked}:8000" for name in ("rollout", "evaluation", "console") for asked in ("policy", "reward")}
PAGES = {"console > trainer-api:8000"}
REDIS = {f"{name} > redis:6379" for name in (*QUEUES, "keda")}
WEIGHTS = {"weights > internet:443"}
COMMON = NAMES | FRONT | METRICS | ASKING | PAGES | WEIGHTS


@pytest.mark.parametrize(
    ("variant", "flows"),
    [
        ("cpu", COMMON | REDIS),
        ("gpu", COMMON | REDIS),
        ("gpu-box", (COMMON | REDIS) - {"keda > redis:6379"}),
        (
            "object-store",
            COMMON
            | REDIS
            | {f"{name} > internet:443" for name in ("policy", "reward", "learner", "evaluation")}
            | {"policy > dns:53", "reward > dns:53"},
        ),
        ("vllm", COMMON | REDIS | {"policy > vllm:8000", "policy > dns:53", "prometheus > vllm:8000"}),
        (
            "documented",
            COMMON | {f"{name} > managed-redis:6380" for name in QUEUES} | {"console > managed-postgresql:5432"},
        ),
    ],
)
def test_these_connections_are_possible_and_no_others(variant: str, flows: set[str]) -> None:
    assert set(allowed(variant, [*pods(variant), *WORLD])) == flows
