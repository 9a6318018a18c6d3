"""What a cluster is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fruits_assets.resources.emr.errors import EmrError
from fruits_assets.resources.emr.instances import (
    InstanceType,
    driver_properties,
    executor_properties,
    instance_type,
    known_types,
)
from fruits_assets.resources.emr.settings import EmrSettings, variable

BOOTSTRAP_FILES = ("bootstrap-emr.sh", "requirements-emr.txt")
DIGEST_TAG = "fruits-assets-digest"
RUN_TAG = "dagster-run-id"


def cluster_request(settings: EmrSettings) -> dict[str, Any]:
    """The arguments of EMR's RunJobFlow for a new cluster.

    Core nodes are on demand, since HDFS does not outlive them; those from the spot market are task nodes,
    which are lost with no more than what they were just doing. Fleets, not groups: only a fleet is taken on
    demand where the spot market has nothing, and in whichever of several subnets has machines.

    Raises:
        EmrError: a type of instance is not in the table.
    """
    workers = _machine(settings, "core_instance_type")
    primary = _machine(settings, "primary_instance_type")
    n_workers = settings.core_instance_count + settings.spot_instance_count
    fleets = [
        _fleet(settings, "MASTER", primary.name, {"TargetOnDemandCapacity": 1}),
        _fleet(settings, "CORE", workers.name, {"TargetOnDemandCapacity": settings.core_instance_count}),
    ]
    yarn = {
        "yarn.nodemanager.resource.memory-mb": str(workers.yarn_mb),
        "yarn.scheduler.maximum-allocation-mb": str(workers.yarn_mb),
    }
    if settings.spot_instance_count:
        fleets.append(_spot_fleet(settings, workers.name))
        # Otherwise what holds a step together may be on a node that goes.
        yarn |= {
            "yarn.node-labels.enabled": "true",
            "yarn.node-labels.am.default-node-label-expression": "CORE",
        }
    places = {
        "EmrManagedMasterSecurityGroup": settings.security_group,
        "EmrManagedSlaveSecurityGroup": settings.security_group,
        "ServiceAccessSecurityGroup": settings.service_access_security_group,
    }
    script, requirements = (f"{settings.bootstrap_uri.rstrip('/')}/{name}" for name in BOOTSTRAP_FILES)
    request: dict[str, Any] = {
        "Name": settings.cluster_name,
        "ReleaseLabel": settings.release_label,
        "Applications": [{"Name": "Spark"}],
        "LogUri": settings.log_uri,
        "ServiceRole": settings.service_role,
        "JobFlowRole": settings.instance_profile,
        "VisibleToAllUsers": True,
        "Instances": {
            "InstanceFleets": fleets,
            "Ec2SubnetIds": [name.strip() for name in settings.subnet_id.split(",") if name.strip()],
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
            **{name: value for name, value in places.items() if value},
        },
        "BootstrapActions": [
            {
                "Name": "Python 3.11 with the packages of the stages",
                "ScriptBootstrapAction": {"Path": script, "Args": [requirements]},
            }
        ],
        "Configurations": [
            {
                "Classification": "spark-defaults",
                "Properties": driver_properties(primary) | executor_properties([workers] * n_workers),
            },
            {"Classification": "yarn-site", "Properties": yarn},
        ],
        "AutoTerminationPolicy": {"IdleTimeout": 60 * settings.idle_minutes},
        # Without this tag, EMR's managed policies do not let it start nodes.
        "Tags": [
            {"Key": name, "Value": value}
            for name, value in {
                "for-use-with-amazon-emr-managed-policies": "true",
                **settings.named_tags,
            }.items()
        ],
    }
    if settings.security_configuration:
        request["SecurityConfiguration"] = settings.security_configuration
    merged: dict[str, Any] = _merged(request, settings.cluster_overrides)
    return merged


def digest(request: Mapping[str, Any], bootstrap: Mapping[str, bytes]) -> str:
    """Changes with whatever a cluster is asked for, and with what its nodes install."""
    content = {name: hashlib.sha256(file).hexdigest() for name, file in bootstrap.items()}
    said = json.dumps([request, content], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def with_tags(request: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """The request with further tags."""
    added = [{"Key": name, "Value": value} for name, value in tags.items()]
    return {**request, "Tags": [*request.get("Tags", []), *added]}


def _machine(settings: EmrSettings, field: str) -> InstanceType:
    name = getattr(settings, field)
    machine = instance_type(name)
    if machine is None:
        raise EmrError(
            f"{variable(field)}={name} is not one of {', '.join(known.name for known in known_types())}. "
            "fruits_assets/resources/emr/instances.py has their memory and prices; add it there."
        )
    return machine


def _fleet(
    settings: EmrSettings, role: str, instance_type: str, capacity: Mapping[str, int]
) -> dict[str, Any]:
    disk = {"VolumeType": "gp3", "SizeInGB": settings.ebs_gb}
    return {
        "Name": role.lower(),
        "InstanceFleetType": role,
        **capacity,
        "InstanceTypeConfigs": [
            {
                "InstanceType": instance_type,
                "EbsConfiguration": {
                    "EbsBlockDeviceConfigs": [{"VolumeSpecification": disk, "VolumesPerInstance": 1}]
                },
            }
        ],
    }


def _spot_fleet(settings: EmrSettings, instance_type: str) -> dict[str, Any]:
    return {
        **_fleet(settings, "TASK", instance_type, {"TargetSpotCapacity": settings.spot_instance_count}),
        "LaunchSpecifications": {
            "SpotSpecification": {
                "TimeoutDurationMinutes": settings.spot_timeout_minutes,
                "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                "AllocationStrategy": "price-capacity-optimized",
            }
        },
    }


def _merged(value: Any, override: Any) -> Any:
    if not (isinstance(value, Mapping) and isinstance(override, Mapping)):
        return override
    names = dict.fromkeys((*value, *override))
    merged = {
        name: _merged(value.get(name), override[name]) if name in override else value[name] for name in names
    }
    return {name: part for name, part in merged.items() if part is not None}
