"""Which connections NetworkPolicies allow, by the rules of Kubernetes: a network plugin of a few lines."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.unit.deploy.manifests import of_kind, render, workloads

OURS = "rlhf"


@dataclass(frozen=True)
class Endpoint:
    """A pod, or an address outside when `ip` is set."""

    name: str
    ports: tuple[tuple[str, int], ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = OURS
    namespace_labels: dict[str, str] = field(default_factory=dict)
    ip: str | None = None


def pods(variant: str) -> list[Endpoint]:
    return [
        Endpoint(
            one.name,
            tuple((port.get("protocol", "TCP"), port["containerPort"]) for port in one.main.get("ports", [])),
            one.labels,
        )
        for one in workloads(variant)
    ]


def allowed(variant: str, endpoints: list[Endpoint]) -> Iterator[str]:
    """`from > to:port` of every pair that may connect."""
    policies = of_kind(render(variant), "NetworkPolicy")
    for source in endpoints:
        for target in endpoints:
            if source is target or (source.namespace != OURS and target.namespace != OURS):
                continue
            for protocol, port in target.ports:
                if _side(policies, "egress", source, target, protocol, port) and _side(
                    policies, "ingress", target, source, protocol, port
                ):
                    yield f"{source.name} > {target.name}:{port}"


def _side(policies: list[dict[str, Any]], way: str, pod: Endpoint, other: Endpoint, protocol: str, port: int) -> bool:
    """Whether the pod's own policies let it connect to the other (egress), or be connected to by it (ingress)."""
    if pod.namespace != OURS:
        return True
    chosen = [
        policy["spec"]
        for policy in policies
        if selects(policy["spec"]["podSelector"], pod.labels) and way.capitalize() in policy["spec"]["policyTypes"]
    ]
    if not chosen:
        return True
    peers = "to" if way == "egress" else "from"
    return any(
        any(_is_peer(peer, other) for peer in rule[peers]) and {"protocol": protocol, "port": port} in rule["ports"]
        for spec in chosen
        for rule in spec.get(way, [])
    )


def _is_peer(peer: dict[str, Any], other: Endpoint) -> bool:
    if "ipBlock" in peer:
        if other.ip is None:
            return False
        address, block = ipaddress.ip_address(other.ip), peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(hole) for hole in block.get("except", [])
        )
    if other.ip is not None:
        return False
    if "namespaceSelector" in peer:
        there = selects(peer["namespaceSelector"], other.namespace_labels)
    else:
        there = other.namespace == OURS
    return there and selects(peer.get("podSelector", {}), other.labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "In"
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return True
