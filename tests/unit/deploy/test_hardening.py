"""What docs/kubernetes.md says is locked down, of every pod of every variant."""

import re
import tomllib

import pytest

from tests.unit.deploy.flows import selects
from tests.unit.deploy.manifests import ROOT, VARIANTS, named, of_kind, render, services, workloads

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_pods_run_as_a_user_without_rights_on_a_file_system_that_cannot_be_written(variant: str) -> None:
    for one in workloads(variant):
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


@every_variant
def test_pods_have_an_account_of_their_own_and_no_token(variant: str) -> None:
    for one in workloads(variant):
        assert one.pod["serviceAccountName"] == one.name
        assert one.pod["automountServiceAccountToken"] is False
        assert one.pod["enableServiceLinks"] is False


@every_variant
def test_accounts_have_no_token_and_no_role(variant: str) -> None:
    accounts = of_kind(render(variant), "ServiceAccount")
    assert {one["metadata"]["name"] for one in accounts} == {one.name for one in workloads(variant)}
    assert all(one["automountServiceAccountToken"] is False for one in accounts)
    assert not of_kind(render(variant), "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@every_variant
def test_containers_have_requests_limits_and_bounded_folders(variant: str) -> None:
    for one in workloads(variant):
        for container in one.containers:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(requests)
            assert {"cpu", "memory"} <= set(limits)
            assert requests["memory"] == limits["memory"]  # else a full node kills what kept to its limit
        assert all("sizeLimit" in volume["emptyDir"] for volume in one.pod["volumes"] if "emptyDir" in volume)


@every_variant
def test_containers_have_probes(variant: str) -> None:
    for one in services(variant):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(one.main)


@every_variant
def test_images_have_the_tag_of_this_version(variant: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for one in workloads(variant):
        for container in one.containers:
            name, tag = container["image"].rsplit(":", 1)
            if "rlhf" in name:
                assert tag in (version, f"{version}-cuda")
            assert re.fullmatch(r"\d[\w.-]*", tag)


@every_variant
def test_the_namespace_admits_restricted_pods_alone(variant: str) -> None:
    labels = named(render(variant), "Namespace", "rlhf")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@every_variant
def test_no_secret_is_in_the_manifests(variant: str) -> None:
    assert not of_kind(render(variant), "Secret")


@every_variant
def test_a_drained_node_takes_one_pod_at_a_time(variant: str) -> None:
    for one in services(variant):
        (budget,) = [
            budget["spec"]
            for budget in of_kind(render(variant), "PodDisruptionBudget")
            if selects(budget["spec"]["selector"], one.labels)
        ]
        assert budget["maxUnavailable"] == 1
