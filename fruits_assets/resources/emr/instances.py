"""What machines are like and cost, and what Spark gets of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# In USD, on demand, in eu-west-3; other regions differ by up to 15 %.
PRICES_OF = "2025-01"
DISK_GB_HOUR = 0.093 / 730  # gp3
# EMR takes a quarter of what the machine costs in us-east-1, and no more than this.
_MAX_EMR_PRICE = 0.27

# Memory of a vCPU in GB; architecture; price of EC2 and fee of EMR for one vCPU and hour.
_FAMILIES = {
    "m5": (4, "x86_64", 0.0560, 0.0120),
    "c5": (2, "x86_64", 0.0505, 0.0106),
    "r5": (8, "x86_64", 0.0740, 0.0158),
    "m6g": (4, "aarch64", 0.0450, 0.0096),
    "c6g": (2, "aarch64", 0.0404, 0.0085),
    "r6g": (8, "aarch64", 0.0592, 0.0126),
}
# Sizes that all of these families have.
_VCPUS = {"xlarge": 4, "2xlarge": 8, "4xlarge": 16, "12xlarge": 48}

# What a Python worker needs at most, with photos of the largest kind.
_WORKER_MB = 900
# A JVM has what is not heap: a tenth as much, by Spark's own rule.
_MIN_JVM_MB, _JVM_SHARE = 384, 0.1
# The JVM moves little: photos pass by it.
_MIN_HEAP_MB, _MAX_HEAP_MB = 1024, 16384
# YARN's own process for the step, on one of the nodes.
_APPLICATION_MASTER_MB = 1024


@dataclass(frozen=True)
class InstanceType:
    """A kind of machine; `usd_hour` is what EC2 and EMR take for it, without its disk."""

    name: str
    n_vcpus: int
    memory_gb: int
    architecture: str
    usd_hour: float

    @property
    def yarn_mb(self) -> int:
        """What YARN may give away of it: EMR's own rule, three quarters or all but 8 GB."""
        return max(self.memory_gb * 768, (self.memory_gb - 8) * 1024)


@dataclass(frozen=True)
class Executor:
    """A JVM with its Python workers, one a core; they live in the overhead."""

    n_cores: int
    heap_mb: int
    overhead_mb: int

    @property
    def mb(self) -> int:
        """What YARN has to give for it."""
        return self.heap_mb + self.overhead_mb


def known_types() -> list[InstanceType]:
    """Those of the table, by name."""
    return [found for name in _FAMILIES for size in _VCPUS if (found := instance_type(f"{name}.{size}"))]


def instance_type(name: str) -> InstanceType | None:
    """What the table has of a type, if anything."""
    family, _, size = name.partition(".")
    if family not in _FAMILIES or size not in _VCPUS:
        return None
    n_vcpus = _VCPUS[size]
    gb, architecture, ec2, emr = _FAMILIES[family]
    return InstanceType(
        name,
        n_vcpus,
        gb * n_vcpus,
        architecture,
        round(ec2 * n_vcpus + min(emr * n_vcpus, _MAX_EMR_PRICE), 4),
    )


def executor_of(machine: InstanceType) -> Executor:
    """The one executor that fills a node: half heap, half overhead, unless its workers need more of it."""
    usable = machine.yarn_mb - _APPLICATION_MASTER_MB
    n_cores = min(machine.n_vcpus, (usable - _MIN_HEAP_MB - _MIN_JVM_MB) // _WORKER_MB)
    beside_workers = usable - n_cores * _WORKER_MB
    heap = min(
        usable // 2,
        beside_workers - _MIN_JVM_MB,
        int(beside_workers / (1 + _JVM_SHARE)),
        _MAX_HEAP_MB,
    )
    return Executor(n_cores, heap, usable - heap)


def executor_properties(workers: Sequence[InstanceType]) -> dict[str, str]:
    """Spark's properties for executors on these nodes; where they differ, for the smallest.

    Spark's `defaultParallelism`, by which the stages cut their work, is the number of cores that have come
    so far, which at the start of a step is 2. So it is told how many there will be.
    """
    if not workers:
        return {}
    executor = min((executor_of(machine) for machine in set(workers)), key=lambda found: found.mb)
    n_cores = sum(
        n_nodes * max(1, machine.yarn_mb // executor.mb) * executor.n_cores
        for machine, n_nodes in Counter(workers).items()
    )
    return {
        "spark.executor.cores": str(executor.n_cores),
        "spark.executor.memory": f"{executor.heap_mb}m",
        "spark.executor.memoryOverhead": f"{executor.overhead_mb}m",
        "spark.default.parallelism": str(n_cores),
    }


def driver_properties(primary: InstanceType) -> dict[str, str]:
    """Spark's properties for the driver, which shares the primary node with EMR's own services."""
    return {"spark.driver.memory": f"{min(primary.memory_gb * 256, _MAX_HEAP_MB)}m"}
