"""Every rendered object is what Kubernetes, or KEDA, takes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate import utils

from tests.unit.deploy.manifests import VARIANTS, Manifest, render

OLDEST, NEWEST = "1.30", "1.37"
KEDA = json.loads(Path(__file__).with_name("keda.json").read_text())


def close(schema: Any) -> Any:
    """The schema that refuses fields it does not name, which KEDA's would drop in silence."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def every_object() -> list[Manifest]:
    texts = {json.dumps(manifest, sort_keys=True) for variant in VARIANTS for manifest in render(variant)}
    return [json.loads(text) for text in sorted(texts)]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object_and_knows_all_its_fields(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))  # else a megabyte is read for each
    ours = [one for one in every_object() if one["apiVersion"] != KEDA["apiVersion"]]
    assert len(ours) > 50
    for manifest in ours:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_keda_takes_its_objects_and_knows_all_their_fields() -> None:
    kedas = [one for one in every_object() if one["apiVersion"] == KEDA["apiVersion"]]
    assert {(one["kind"], one["metadata"]["name"]) for one in kedas} == {
        ("TriggerAuthentication", "redis"),
        ("ScaledObject", "learner"),
        ("ScaledObject", "rollout"),
        ("ScaledObject", "evaluation"),
    }
    for manifest in kedas:
        jsonschema.validate(manifest, close(KEDA["schemas"][manifest["kind"]]))


def test_a_field_that_does_not_exist_is_found() -> None:
    scaled = next(one for one in render("cpu") if one["kind"] == "ScaledObject")
    scaled = scaled | {"spec": scaled["spec"] | {"maxReplicas": 3}}  # its name is maxReplicaCount
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate(scaled, close(KEDA["schemas"]["ScaledObject"]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_in_the_namespace_and_once(variant: str) -> None:
    manifests = render(variant)
    assert {one["metadata"].get("namespace") for one in manifests if one["kind"] != "Namespace"} == {"rlhf"}
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))
