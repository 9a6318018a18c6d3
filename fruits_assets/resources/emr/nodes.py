"""What a cluster consists of, as EMR says, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fruits_assets.resources.emr.instances import (
    DISK_GB_HOUR,
    driver_properties,
    executor_properties,
    instance_type,
)

_ROLES = ("MASTER", "CORE", "TASK")


@dataclass(frozen=True)
class Node:
    """A machine that a cluster has or had."""

    role: str
    type: str
    since: datetime
    until: datetime | None


def nodes_of(emr: Any, cluster: Mapping[str, Any]) -> list[Node]:
    """All nodes of a cluster, those that are gone included.

    Args:
        emr: a client of EMR.
        cluster: as DescribeCluster has it.
    """
    has_fleets = cluster.get("InstanceCollectionType") == "INSTANCE_FLEET"
    nodes = []
    for role in _ROLES:
        those = {"InstanceFleetType": role} if has_fleets else {"InstanceGroupTypes": [role]}
        for page in emr.get_paginator("list_instances").paginate(ClusterId=cluster["Id"], **those):
            for instance in page["Instances"]:
                timeline = instance["Status"]["Timeline"]
                is_gone = instance["Status"]["State"] == "TERMINATED"
                until = timeline.get("EndDateTime", timeline["CreationDateTime"]) if is_gone else None
                nodes.append(Node(role, instance["InstanceType"], timeline["CreationDateTime"], until))
    return nodes


def spark_properties(nodes: Sequence[Node]) -> dict[str, str]:
    """Spark's properties for a step on these nodes; none where a type is not in the table."""
    here = [node for node in nodes if node.until is None]
    primary = [instance_type(node.type) for node in here if node.role == "MASTER"]
    workers = [instance_type(node.type) for node in here if node.role != "MASTER"]
    known = [machine for machine in workers if machine]
    return {
        **(driver_properties(primary[0]) if primary and primary[0] else {}),
        **(executor_properties(known) if len(known) == len(workers) else {}),
    }


def unknown_types(nodes: Sequence[Node]) -> list[str]:
    """Types of nodes that are not in the table."""
    return sorted({node.type for node in nodes if instance_type(node.type) is None})


def in_words(nodes: Sequence[Node]) -> str:
    """`1 m5.xlarge + 20 m6g.xlarge`: those that are there, the primary first."""
    here = Counter((_ROLES.index(node.role) > 0, node.type) for node in nodes if node.until is None)
    return " + ".join(f"{n} {name}" for (_, name), n in sorted(here.items()))


def usd(nodes: Sequence[Node], since: datetime, until: datetime, disk_gb: int) -> float | None:
    """What the nodes cost between two points in time, or None where a type is not in the table.

    Nodes from the spot market count as if they were on demand.
    """
    total = 0.0
    for node in nodes:
        machine = instance_type(node.type)
        if machine is None:
            return None
        seconds = (min(node.until or until, until) - max(node.since, since)).total_seconds()
        total += max(0.0, seconds) / 3600 * (machine.usd_hour + disk_gb * DISK_GB_HOUR)
    return round(total, 4)
