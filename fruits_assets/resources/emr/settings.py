"""What can be set of a cluster and its steps."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from fruits_assets.resources.emr.errors import EmrError
from fruits_assets.resources.spark import SparkRunner


class EmrSettings(SparkRunner):
    """FRUITS_EMR_REGION and so on: an environment variable for every field."""

    region: str = Field(default="eu-west-3", description="AWS region of cluster and buckets.")
    allow_non_eu_region: bool = Field(
        default=False, description="Accept regions where the GDPR does not apply by itself."
    )
    staging_uri: str = Field(default="", description="s3:// prefix for code and messages of steps.")
    cluster_id: str = Field(default="", description="An existing cluster, j-...; empty: find by name.")
    cluster_name: str = Field(default="fruits-assets", description="Name to find or start it by.")
    log_uri: str = Field(default="", description="s3:// prefix for EMR's logs.")
    bootstrap_uri: str = Field(
        default="", description="s3:// prefix that holds bootstrap-emr.sh and requirements-emr.txt."
    )
    service_role: str = Field(default="", description="IAM role of the EMR service.")
    instance_profile: str = Field(default="", description="Instance profile of the nodes.")
    subnet_id: str = Field(
        default="", description="Subnet of the nodes, or several, separated by commas: EMR takes the best."
    )
    security_configuration: str = Field(default="", description="EMR security configuration.")
    security_group: str = Field(default="", description="Security group of the nodes.")
    service_access_security_group: str = Field(
        default="", description="Security group by which EMR reaches nodes in a private subnet."
    )
    tags: str = Field(default="", description="Tags of the cluster: name=value,name=value.")
    release_label: str = Field(default="emr-7.13.0", description="EMR release.")
    primary_instance_type: str = Field(default="m5.xlarge", description="Type of the primary node.")
    core_instance_type: str = Field(default="m5.xlarge", description="Type of all other nodes.")
    core_instance_count: int = Field(default=2, ge=1, description="How many core nodes, on demand.")
    spot_instance_count: int = Field(
        default=0, ge=0, description="How many further nodes from the spot market: they can be lost."
    )
    spot_timeout_minutes: int = Field(
        default=20, ge=5, le=1440, description="Take them on demand if there are none for so long."
    )
    start_timeout_minutes: int = Field(
        default=60, ge=5, description="Terminate a cluster that does not take steps by then."
    )
    ebs_gb: int = Field(default=64, ge=10, description="Disk of each node in GB.")
    idle_minutes: int = Field(
        default=30, ge=1, le=10080, description="Terminate the cluster after so long without a step."
    )
    cluster_overrides: dict[str, Any] = Field(
        default={},
        description="JSON merged into the RunJobFlow request: objects are merged, null removes, anything "
        "else replaces.",
    )
    execution_role: str = Field(
        default="", description="ARN of a runtime role for the steps; the cluster must have these enabled."
    )
    spark_conf: dict[str, Any] = Field(
        default={}, description="Further Spark properties of a step; they go before the derived ones."
    )
    poll_s: float = Field(default=10, gt=0, description="Seconds between looks at cluster and step.")
    patience_minutes: int = Field(
        default=10, ge=0, description="How long to bear with AWS not answering, or expired credentials."
    )
    log_wait_s: int = Field(
        default=360, ge=0, description="How long to wait for the log of a step that could not report."
    )
    real_cost: bool = Field(
        default=False,
        description="Ask Cost Explorer every evening what yesterday really cost, for 0.01 USD a time.",
    )
    daily_budget_usd: float = Field(
        default=0, ge=0, description="With `real_cost`: warn of a day that cost more; 0: of none."
    )

    def refuse_missing(self) -> None:
        """Raise for settings that are missing or malformed.

        Raises:
            EmrError: names all of them.
        """
        required = {"staging_uri": self.staging_uri}
        if not self.cluster_id:
            for name in ("log_uri", "bootstrap_uri", "service_role", "instance_profile", "subnet_id"):
                required[name] = getattr(self, name)
        missing = [variable(name) for name, value in required.items() if not value]
        if missing:
            raise EmrError(
                f"FRUITS_SPARK=emr needs {', '.join(missing)}. The outputs of bootstrap/emr-stack.yaml have "
                "them all; FRUITS_EMR_CLUSTER_ID names a cluster that exists and needs less."
            )
        for name in ("staging_uri", "log_uri", "bootstrap_uri"):
            value = getattr(self, name)
            if value and not value.startswith("s3://"):
                raise EmrError(f"{variable(name)}={value} is not an s3:// prefix.")
        for pair in filter(None, self.tags.split(",")):
            if "=" not in pair:
                raise EmrError(f"{variable('tags')}={self.tags}: '{pair}' is not name=value.")

    @property
    def named_tags(self) -> dict[str, str]:
        """Value by name."""
        pairs = (pair.partition("=") for pair in self.tags.split(","))
        return {name: value for name, is_pair, value in pairs if is_pair}

    @property
    def uris(self) -> dict[str, str]:
        """The places among them, by the name of the setting."""
        own = {name: getattr(self, name) for name in ("staging_uri", "log_uri", "bootstrap_uri")}
        return {variable(name): uri for name, uri in own.items() if uri}


def variable(field: str) -> str:
    """The environment variable of a field."""
    return f"FRUITS_EMR_{field.upper()}"
