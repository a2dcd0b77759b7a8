"""What docs/kubernetes.md says is locked down, of every pod of every variant."""

import re
import tomllib

import pytest

from tests.unit.deploy.flows import selects
from tests.unit.deploy.manifests import ROOT, VARIANTS, Workload, named, of_kind, render, workloads

EVERY = [pytest.param(one, id=f"{variant}-{one.name}") for variant in VARIANTS for one in workloads(variant)]


@pytest.mark.parametrize("one", EVERY)
def test_pods_run_as_a_user_without_rights_on_a_file_system_that_cannot_be_written(one: Workload) -> None:
    pod = one.pod["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == (999 if one.name == "redis" else 10001)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(one.pod)
    for container in one.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", []))
    kinds = {kind for volume in one.pod["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim", "projected"}


@pytest.mark.parametrize("one", EVERY)
def test_pods_have_an_account_of_their_own_and_no_token(one: Workload) -> None:
    assert one.pod["serviceAccountName"] == one.name
    assert one.pod["automountServiceAccountToken"] is False
    assert one.pod["enableServiceLinks"] is False


@pytest.mark.parametrize("variant", VARIANTS)
def test_accounts_have_no_token_and_no_role(variant: str) -> None:
    accounts = of_kind(render(variant), "ServiceAccount")
    assert {one["metadata"]["name"] for one in accounts} == {one.name for one in workloads(variant)}
    assert all(one["automountServiceAccountToken"] is False for one in accounts)
    assert not of_kind(render(variant), "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@pytest.mark.parametrize("one", EVERY)
def test_containers_have_requests_limits_and_bounded_folders(one: Workload) -> None:
    for container in one.containers:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(requests)
        assert {"cpu", "memory"} <= set(limits)
        assert requests["memory"] == limits["memory"]  # else a full node kills what kept to its limit
    assert all("sizeLimit" in volume["emptyDir"] for volume in one.pod["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize("one", [each for each in EVERY if each.values[0].kind != "Job"])
def test_containers_have_probes(one: Workload) -> None:
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(one.main)


@pytest.mark.parametrize("one", EVERY)
def test_images_have_the_tag_of_this_version(one: Workload) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for container in one.containers:
        name, tag = container["image"].rsplit(":", 1)
        if "rlhf" in name:
            assert tag in (version, f"{version}-cuda")
        assert re.fullmatch(r"\d[\w.-]*", tag)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_namespace_admits_restricted_pods_alone(variant: str) -> None:
    labels = named(render(variant), "Namespace", "rlhf")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_secret_is_in_the_manifests(variant: str) -> None:
    assert not of_kind(render(variant), "Secret")


@pytest.mark.parametrize("one", [each for each in EVERY if each.values[0].kind != "Job"])
def test_a_drained_node_takes_one_pod_at_a_time(one: Workload, request: pytest.FixtureRequest) -> None:
    variant = request.node.callspec.id.split("-")[0]
    (budget,) = [
        budget["spec"]
        for budget in of_kind(render(variant), "PodDisruptionBudget")
        if selects(budget["spec"]["selector"], one.labels)
    ]
    assert budget["maxUnavailable"] == 1
