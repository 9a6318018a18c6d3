"""What AWS has charged for a day, as Cost Explorer tells it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import Field

from fruits_assets.resources.emr.aws import Aws
from fruits_assets.resources.emr.errors import EmrError

USD_A_QUESTION = 0.01

_EMR = "Amazon Elastic MapReduce"
# Usage types begin with a region's short name everywhere but in us-east-1: EUW3-BoxUsage:m5.xlarge.
_OF_CLUSTERS = re.compile(r"(^|-)(BoxUsage|SpotUsage|EBS:Volume)")


class CostUnknownError(EmrError):
    """Cost Explorer does not tell; the message says why, and what helps."""


@dataclass(frozen=True)
class DayCost:
    """What was charged in a day, in USD before taxes, credits and refunds: by service, and for clusters.

    Of clusters are machines, EMR's fee and disks: what is estimated. NAT gateway, bucket and key are not.
    """

    by_service: Mapping[str, float]
    clusters: float

    @property
    def total(self) -> float:
        """For everything that carries the tag."""
        return sum(self.by_service.values())


class CostExplorer(dg.ConfigurableResource):
    """Answers by the tag that the stack gives to all that it makes, and runs to their clusters."""

    region: str = Field(description="AWS region whose credentials are used.")
    project: str = Field(description="Value of the tag `Project`.")
    daily_budget_usd: float = Field(default=0, ge=0, description="0: no budget.")

    @property
    def tag(self) -> str:
        """As people write it."""
        return f"Project={self.project}"

    def charged(self, day: date) -> DayCost | None:
        """What was charged in a day of UTC, or None if nothing is known of it.

        Raises:
            CostUnknownError: AWS refuses, does not answer, or counts in another currency.
        """
        question = {
            "TimePeriod": {"Start": day.isoformat(), "End": (day + timedelta(days=1)).isoformat()},
            "Granularity": "DAILY",
            "Metrics": ["UnblendedCost"],
            "Filter": {
                "And": [
                    {"Tags": {"Key": "Project", "Values": [self.project]}},
                    # An account that lives on credits would seem to pay nothing.
                    {"Not": {"Dimensions": {"Key": "RECORD_TYPE", "Values": ["Credit", "Refund"]}}},
                ]
            },
            "GroupBy": [{"Type": "DIMENSION", "Key": key} for key in ("SERVICE", "USAGE_TYPE")],
        }
        by_service: defaultdict[str, float] = defaultdict(float)
        clusters = 0.0
        for service, usage_type, usd in self._answered(question):
            by_service[service] += usd
            if service == _EMR or _OF_CLUSTERS.search(usage_type):
                clusters += usd
        return DayCost(by_service, clusters) if by_service else None

    def _answered(self, question: Mapping[str, Any]) -> list[tuple[str, str, float]]:
        """Services, their usage types, and USD."""
        client, page = Aws(self.region).cost_explorer, dict[str, str]()
        rows: list[tuple[str, str, float]] = []
        try:
            while True:
                answer = client.get_cost_and_usage(**question, **page)
                for result in answer["ResultsByTime"]:
                    for group in result["Groups"]:
                        cost = group["Metrics"]["UnblendedCost"]
                        if cost["Unit"] != "USD":
                            raise CostUnknownError(f"Cost Explorer counts in {cost['Unit']}, not in USD.")
                        rows.append((*group["Keys"], float(cost["Amount"])))
                if not (token := answer.get("NextPageToken")):
                    return rows
                page = {"NextPageToken": token}
        except (BotoCoreError, ClientError) as error:
            raise CostUnknownError(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    if code == "DataUnavailableException":
        return f"Cost Explorer has no data yet ({error}). It lags by up to a day, and by more once enabled."
    if code == "AccessDeniedException":
        return (
            f"Cost Explorer refuses to answer ({error}). Whoever starts runs needs the right "
            "ce:GetCostAndUsage, which the policy of bootstrap/emr-stack.yaml gives. Cost Explorer has to be "
            "enabled once, in the console of the account that pays."
        )
    return f"Cost Explorer does not answer ({error})."
