"""What kustomize makes of deploy/k8s, as the tests read it."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ("cpu", "gpu", "vllm")
DOCUMENTED = "documented"
"""The kustomization that docs/kubernetes.md shows: managed Redis and PostgreSQL, own registry, own storage class."""
GPU_BOX = "gpu-box"
"""One node with several GPUs and no KEDA: the overlay gpu with the components for that."""
OBJECT_STORE = "object-store"
"""The overlay gpu with what is published in an object store."""
COMPONENTS = {GPU_BOX: ("one-node", "several-gpus", "without-keda"), OBJECT_STORE: ("object-store",)}
"""Of the variants that are the overlay gpu with some."""
VARIANTS = (*OVERLAYS, *COMPONENTS, DOCUMENTED)
KUBECTL = Path(sys.executable).with_name("kubectl")
Manifest = dict[str, Any]


@cache
def render(variant: str) -> tuple[Manifest, ...]:
    if variant in OVERLAYS:
        return kustomize(K8S / "overlays" / variant)
    if variant in COMPONENTS:
        components = ", ".join(f"../deploy/k8s/components/{name}" for name in COMPONENTS[variant])
        text = f"resources: [../deploy/k8s/overlays/gpu]\ncomponents: [{components}]\n"
    else:
        document = (ROOT / "docs" / "kubernetes.md").read_text()
        (text,) = re.findall(r"<!-- tested: kustomize -->\n```yaml\n(.*?)```", document, re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        repository = os.path.relpath(ROOT, Path(folder).resolve())
        Path(folder, "kustomization.yaml").write_text(text.replace("../deploy/", f"{repository}/deploy/"))
        return kustomize(Path(folder))


def kustomize(folder: Path) -> tuple[Manifest, ...]:
    made = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def of_kind(manifests: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    (manifest,) = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return manifest


@dataclass(frozen=True)
class Workload:
    """What makes pods, and the pods that it makes."""

    kind: str
    name: str
    manifest: Manifest

    @property
    def labels(self) -> dict[str, str]:
        return self.manifest["spec"]["template"]["metadata"]["labels"]

    @property
    def pod(self) -> dict[str, Any]:
        return self.manifest["spec"]["template"]["spec"]

    @property
    def main(self) -> dict[str, Any]:
        (container,) = self.pod["containers"]
        return container

    @property
    def containers(self) -> Iterator[dict[str, Any]]:
        yield from self.pod.get("initContainers", [])
        yield from self.pod["containers"]


def workloads(variant: str) -> list[Workload]:
    made = [one for one in render(variant) if "template" in one.get("spec", {})]
    return [Workload(one["kind"], one["metadata"]["name"], one) for one in made]


def services(variant: str) -> list[Workload]:
    """Those that run until they are stopped."""
    return [one for one in workloads(variant) if one.kind != "Job"]


def workload(variant: str, name: str) -> Workload:
    (found,) = [one for one in workloads(variant) if one.name == name]
    return found


def environment(variant: str, container: dict[str, Any]) -> dict[str, str]:
    """As the container sees it; what comes from a Secret or from its limits by the name of its source."""
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values |= named(render(variant), "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        if "resourceFieldRef" in source:
            group, resource = source["resourceFieldRef"]["resource"].split(".")
            values[entry["name"]] = str(container["resources"][group][resource])
        elif "secretKeyRef" in source:
            values[entry["name"]] = f"{source['secretKeyRef']['name']}/{source['secretKeyRef']['key']}"
        else:
            values[entry["name"]] = entry["value"]
    return values
