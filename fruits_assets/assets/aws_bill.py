"""What AWS has really charged, beside what runs have estimated."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
from pydantic import Field, field_validator

from fruits_assets.assets.materialization import OWNERS, check
from fruits_assets.resources.emr.cost import USD_A_QUESTION, CostExplorer, CostUnknownError, DayCost
from fruits_assets.resources.emr.instances import PRICES_OF
from fruits_assets.resources.emr.settings import variable

MAX_DIFFERENCE = 0.3  # of the estimate
# Differences that cost less than to ask for them.
_NEGLIGIBLE_USD = USD_A_QUESTION
_DAY = timedelta(days=1)
# What was estimated before a day may be of it: EMR lets a cluster be idle for no longer than this.
_LONGEST_IDLE = timedelta(days=7)
_RECORDS_AT_ONCE = 1000

aws_bill = dg.AssetSpec(
    "aws_bill",
    description="What AWS charges for all that carries the tag `Project` of FRUITS_EMR_TAGS.",
    group_name="aws",
    owners=OWNERS,
    kinds={"aws"},
)


class RealCostConfig(dg.Config):
    """Configuration of the check."""

    day: str = Field(default="", description="Of UTC, such as 2026-01-31; if empty, yesterday.")

    @field_validator("day")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        return value and date.fromisoformat(value).isoformat()


@dg.asset_check(
    asset=aws_bill.key,
    description=f"The clusters of a day cost what runs have estimated, within {MAX_DIFFERENCE:.0%}, and all "
    f"together no more than the budget. To ask costs {USD_A_QUESTION} USD.",
)
def real_cost(
    context: dg.AssetCheckExecutionContext, config: RealCostConfig, cost_explorer: CostExplorer
) -> dg.AssetCheckResult:
    """A warning at most: whatever AWS charges or does not tell, no run fails of it."""
    day = date.fromisoformat(config.day) if config.day else datetime.now(UTC).date() - _DAY
    estimated = estimated_usd(context.instance, day)
    numbers: dict[str, Any] = {"day": day.isoformat(), "estimated_usd": round(estimated, 4)}
    try:
        charged = cost_explorer.charged(day)
    except CostUnknownError as error:
        return check("real_cost", False, dg.AssetCheckSeverity.WARN, str(error), **numbers)
    if charged is None:
        remedy = (
            f"Cost Explorer knows of no cost of {cost_explorer.tag} on {day}. It lags by up to 24 hours: ask "
            "again tomorrow. If it still does not, `Project` is not active as a cost allocation tag: the "
            "account that pays has that in its Billing console, and it takes another 24 hours."
        )
        # Where nothing ran and nothing was charged, nothing is wrong.
        passed = estimated < _NEGLIGIBLE_USD
        return check("real_cost", passed, dg.AssetCheckSeverity.WARN, remedy, **numbers)
    faults = list(_faults(charged, estimated, cost_explorer))
    services = [
        dg.TableRecord({"service": service, "usd": round(usd, 4)})
        for service, usd in sorted(charged.by_service.items(), key=lambda item: -item[1])
    ]
    return check(
        "real_cost",
        not faults,
        dg.AssetCheckSeverity.WARN,
        " ".join(faults),
        **numbers,
        real_usd=round(charged.clusters, 4),
        real_usd_with_all_else=round(charged.total, 4),
        budget_usd=cost_explorer.daily_budget_usd or "none",
        services=dg.MetadataValue.table(services),
    )


def _faults(charged: DayCost, estimated: float, asked: CostExplorer) -> Iterator[str]:
    if abs(charged.clusters - estimated) > max(MAX_DIFFERENCE * estimated, _NEGLIGIBLE_USD):
        yield (
            f"Clusters cost {charged.clusters:.2f} USD, and {estimated:.2f} were estimated. What an estimate "
            "does not know: that nodes from the spot market are cheaper, runs that failed or were started "
            "elsewhere, clusters that were ended before they were idle for long, prices since "
            f"{PRICES_OF}. What Cost Explorer may not know yet: the last hours."
        )
    if 0 < asked.daily_budget_usd < charged.total:
        yield (
            f"All of {asked.tag} cost {charged.total:.2f} USD, and {variable('daily_budget_usd')} is "
            f"{asked.daily_budget_usd:.2f}."
        )


def estimated_usd(instance: dg.DagsterInstance, day: date) -> float:
    """What the clusters of a day of UTC cost, as far as this instance's materializations estimate it.

    Each tells what its cluster costs from its first node to its end, if no other step comes: the last one
    counts, with the part of that time that is of the day.
    """
    begin = datetime.combine(day, time(), UTC).timestamp()
    end = begin + _DAY.total_seconds()
    clusters: dict[str, tuple[float, float, float]] = {}
    for told in _told_by_steps(instance, begin - _LONGEST_IDLE.total_seconds()):
        until = told["cluster_until"]
        if until > clusters.get(told["emr_cluster"], (0.0, 0.0, 0.0))[1]:
            clusters[told["emr_cluster"]] = (told["cluster_since"], until, told["estimated_cluster_cost"])
    return sum(
        usd * max(0.0, min(until, end) - max(since, begin)) / (until - since)
        for since, until, usd in clusters.values()
    )


def _told_by_steps(instance: dg.DagsterInstance, since: float) -> Iterator[dict[str, Any]]:
    """The metadata of materializations that say what their cluster costs."""
    for key in instance.all_asset_keys():
        wanted, cursor = dg.AssetRecordsFilter(asset_key=key, after_timestamp=since), None
        while True:
            page = instance.fetch_materializations(wanted, limit=_RECORDS_AT_ONCE, cursor=cursor)
            for record in page.records:
                if record.asset_materialization is not None:
                    told = {
                        name: value.value for name, value in record.asset_materialization.metadata.items()
                    }
                    if {"estimated_cluster_cost", "cluster_until"} <= told.keys():
                        yield told
            if not page.has_more:
                break
            cursor = page.cursor
