"""What AWS has charged beside what was estimated, asked of moto's Cost Explorer by the product's own job."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import requests
from moto.ce.models import CostExplorerBackend, ce_backends
from moto.core.exceptions import JsonRESTError
from moto.core.models import DEFAULT_ACCOUNT_ID

from fruits_assets.assets import aws_bill
from fruits_assets.definitions import Settings, definitions

DAY = date(2026, 1, 31)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
COMPUTE, EMR, OTHER = "Amazon Elastic Compute Cloud - Compute", "Amazon Elastic MapReduce", "EC2 - Other"

Line = tuple[str, str, float]


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> str:
    """The tag's value of this test's own, in the settings of an installation that asks for its cost."""
    name = f"fruits-{uuid.uuid4().hex[:8]}"
    for variable, value in {
        "FRUITS_SPARK": "emr",
        "FRUITS_IMAGES": "s3://bucket/images",
        "FRUITS_LAKE": "s3://bucket/lake",
        "FRUITS_EMR_TAGS": f"for-use-with-amazon-emr-managed-policies=true,Project={name}",
        "FRUITS_EMR_REAL_COST": "true",
    }.items():
        monkeypatch.setenv(variable, value)
    return name


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def estimate(
    instance: dg.DagsterInstance,
    usd: float,
    cluster: str = "j-1",
    since: datetime = NOON,
    until: datetime = NOON + HOUR,
    asset: str = "raw_images",
) -> None:
    """As a step tells it."""
    told: dict[str, Any] = {
        "emr_cluster": cluster,
        "estimated_cluster_cost": usd,
        "cluster_since": dg.MetadataValue.timestamp(since),
        "cluster_until": dg.MetadataValue.timestamp(until),
    }
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=told))


def answer(*lines: Line, unit: str = "USD", **more: Any) -> dict[str, Any]:
    """Of Cost Explorer, from services, usage types and what they cost."""
    groups = [
        {"Keys": [service, usage_type], "Metrics": {"UnblendedCost": {"Amount": str(usd), "Unit": unit}}}
        for service, usage_type, usd in lines
    ]
    period = {"Start": DAY.isoformat(), "End": (DAY + timedelta(days=1)).isoformat()}
    by_time = [{"TimePeriod": period, "Total": {}, "Groups": groups, "Estimated": True}]
    return {"ResultsByTime": by_time, "DimensionValueAttributes": [], **more}


def will_answer(endpoint: str, *answers: dict[str, Any]) -> None:
    response = requests.post(
        f"{endpoint}/moto-api/static/ce/cost-and-usage-results", json={"results": answers}, timeout=10
    )
    assert response.status_code == 201


def compare(instance: dg.DagsterInstance, day: date | None = DAY) -> dg.AssetCheckEvaluation:
    """Run the job, which succeeds in any case."""
    config = {"ops": {"aws_bill_real_cost": {"config": {"day": day.isoformat()}}}} if day else None
    job = definitions(Settings()).resolve_job_def("compare_costs")
    result = job.execute_in_process(instance=instance, run_config=config)
    assert result.success
    (found,) = result.get_asset_check_evaluations()
    assert found.severity == dg.AssetCheckSeverity.WARN
    return found


def shown(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def questions(project: str) -> list[dict[str, Any]]:
    """What moto was asked for a project and had an answer to."""
    asked = [json.loads(body) for body in ce_backends[DEFAULT_ACCOUNT_ID]["aws"].cost_usage_results]
    return [question for question in asked if project in json.dumps(question)]


# Off -------------------------------------------------------------------------------------------------


def names(found: dg.Definitions) -> set[str]:
    repository = found.get_repository_def()
    return {
        *(job.name for job in repository.get_all_jobs()),
        *(schedule.name for schedule in repository.schedule_defs),
        *(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
        *repository.get_top_level_resources(),
    }


def test_nothing_of_it_is_there_until_switched_on(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on = names(definitions(Settings()))
    assert on - names_without(monkeypatch, "FRUITS_EMR_REAL_COST") == {
        "aws_bill",
        "compare_costs",
        "cost_explorer",
        "every_evening",
    }
    monkeypatch.setenv("FRUITS_EMR_REAL_COST", "true")
    assert "aws_bill" not in names_without(monkeypatch, "FRUITS_SPARK")


def names_without(monkeypatch: pytest.MonkeyPatch, variable: str) -> set[str]:
    monkeypatch.delenv(variable)
    return names(definitions(Settings()))


def test_a_run_of_the_graph_does_not_ask(project: str) -> None:
    found = definitions(Settings())
    steps = {node.name for node in found.resolve_job_def("fruits_pipeline").nodes}
    assert "raw_images" in steps
    assert not {step for step in steps if "real_cost" in step}
    schedule = found.get_repository_def().get_schedule_def("every_evening")
    assert schedule.job_name == "compare_costs"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_tag_to_ask_by_is_needed(project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_EMR_TAGS", "DataClassification=confidential")
    with pytest.raises(ValueError, match=r"FRUITS_EMR_REAL_COST=true needs Project=.* in FRUITS_EMR_TAGS"):
        definitions(Settings())


# Compared --------------------------------------------------------------------------------------------


def test_what_clusters_cost_stands_beside_what_was_estimated(
    s3: str, project: str, instance: dg.DagsterInstance
) -> None:
    estimate(instance, 0.84)
    lines = [
        (COMPUTE, "EUW3-BoxUsage:m5.xlarge", 0.60),
        (COMPUTE, "EUW3-SpotUsage:m5.xlarge", 0.02),
        (EMR, "EUW3-BoxUsage:m5.xlarge", 0.15),
        (OTHER, "EUW3-EBS:VolumeUsage.gp3", 0.03),
        # Of the network and the bucket, which cost as much without a run.
        (OTHER, "EUW3-NatGateway-Hours", 1.2),
        ("Amazon Simple Storage Service", "EUW3-TimedStorage-ByteHrs", 0.1),
        ("AWS Key Management Service", "EUW3-KMS-Keys", 0.03),
    ]
    will_answer(s3, answer(*lines))
    found = compare(instance)
    assert found.passed, found.description
    told = shown(found)
    assert (told["day"], told["estimated_usd"]) == ("2026-01-31", 0.84)
    assert told["real_usd"] == pytest.approx(0.80)
    assert told["real_usd_with_all_else"] == pytest.approx(2.13)
    table = found.metadata["services"]
    assert isinstance(table, dg.TableMetadataValue)
    services = [(row.data["service"], row.data["usd"]) for row in table.records]
    assert services[:2] == [(OTHER, 1.23), (COMPUTE, 0.62)]
    (question,) = questions(project)
    assert question["TimePeriod"] == {"Start": "2026-01-31", "End": "2026-02-01"}
    assert question["Filter"]["And"][0] == {"Tags": {"Key": "Project", "Values": [project]}}


def test_without_a_day_it_is_yesterday(s3: str, project: str, instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    yesterday = datetime(now.year, now.month, now.day, tzinfo=UTC) - timedelta(hours=12)
    estimate(instance, 1.0, since=yesterday, until=yesterday + HOUR)
    will_answer(s3, answer((COMPUTE, "BoxUsage:m5.xlarge", 1.0)))
    found = compare(instance, day=None)
    assert found.passed, found.description
    assert shown(found)["day"] == yesterday.date().isoformat() == questions(project)[0]["TimePeriod"]["Start"]


@pytest.mark.parametrize(
    ("real", "passes"), [(1.29, True), (1.31, False), (0.71, True), (0.69, False), (0.0, False)]
)
def test_a_difference_of_more_than_thirty_percent_is_a_warning(
    s3: str, project: str, instance: dg.DagsterInstance, real: float, passes: bool
) -> None:
    estimate(instance, 1.0)
    will_answer(s3, answer((COMPUTE, "EUW3-BoxUsage:m5.xlarge", real)))
    found = compare(instance)
    assert found.passed == passes
    if not passes:
        assert f"Clusters cost {real:.2f} USD, and 1.00 were estimated" in str(found.description)


def test_clusters_that_nobody_estimated_are_a_warning_and_a_tenth_of_a_cent_is_not(
    s3: str, project: str, instance: dg.DagsterInstance
) -> None:
    will_answer(s3, answer((EMR, "EUW3-BoxUsage:m5.xlarge", 0.001)))
    assert compare(instance).passed
    will_answer(s3, answer((EMR, "whatever EMR calls it", 5.0)))
    assert not compare(instance, DAY - timedelta(days=1)).passed


@pytest.mark.parametrize(("budget", "passes"), [("", True), ("2.5", True), ("2.2", False)])
def test_a_day_that_costs_more_than_the_budget_is_a_warning(
    s3: str,
    project: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    budget: str,
    passes: bool,
) -> None:
    if budget:
        monkeypatch.setenv("FRUITS_EMR_DAILY_BUDGET_USD", budget)
    estimate(instance, 1.0)
    lines = [(COMPUTE, "EUW3-BoxUsage:m5.xlarge", 1.0), (OTHER, "EUW3-NatGateway-Hours", 1.3)]
    will_answer(s3, answer(*lines))
    found = compare(instance)
    assert found.passed == passes
    assert shown(found)["budget_usd"] == (float(budget) if budget else "none")
    if not passes:
        assert f"All of Project={project} cost 2.30 USD, and FRUITS_EMR_DAILY_BUDGET_USD is 2.20" in str(
            found.description
        )


def test_an_answer_may_come_in_parts(s3: str, project: str, instance: dg.DagsterInstance) -> None:
    estimate(instance, 1.0)
    first = answer((COMPUTE, "EUW3-BoxUsage:m5.xlarge", 0.8), NextPageToken="more")
    will_answer(s3, first, answer((EMR, "EUW3-BoxUsage:m5.xlarge", 0.2)))
    assert shown(compare(instance))["real_usd"] == pytest.approx(1.0)
    assert [question.get("NextPageToken") for question in questions(project)] == [None, "more"]


# Estimated -------------------------------------------------------------------------------------------


def test_of_a_cluster_the_last_estimate_counts_and_of_that_the_part_of_the_day(
    s3: str, project: str, instance: dg.DagsterInstance
) -> None:
    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    # Three steps of one cluster, each of which estimates the whole of it.
    estimate(instance, 0.5, "j-1", NOON, NOON + HOUR, asset="mobilenet_features")
    estimate(instance, 1.5, "j-1", NOON, NOON + 3 * HOUR, asset="pca_model")
    estimate(instance, 1.0, "j-1", NOON, NOON + 2 * HOUR, asset="scaled_features")
    # One that began the day before, and one that is there for an hour of four.
    estimate(
        instance, 0.6, "j-2", datetime(2026, 1, 30, 22, tzinfo=UTC), datetime(2026, 1, 31, 1, tzinfo=UTC)
    )
    estimate(instance, 4.0, "j-3", midnight - HOUR, midnight + 3 * HOUR)
    # Of other days, of a local run, and with a machine of unknown price.
    estimate(instance, 9.0, "j-4", midnight, midnight + HOUR)
    instance.report_runless_asset_event(dg.AssetMaterialization("raw_images", metadata={"peak_memory_mb": 1}))
    instance.report_runless_asset_event(
        dg.AssetMaterialization("raw_images", metadata={"emr_cluster": "j-5"})
    )
    will_answer(s3, answer((COMPUTE, "EUW3-BoxUsage:m5.xlarge", 2.2)))
    assert shown(compare(instance))["estimated_usd"] == pytest.approx(1.5 + 0.2 + 1.0)


def test_all_estimates_of_an_asset_count(
    s3: str, project: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_bill, "_RECORDS_AT_ONCE", 2)
    for n in range(5):
        estimate(instance, 1.0, f"j-{n}")
    will_answer(s3, answer((COMPUTE, "EUW3-BoxUsage:m5.xlarge", 5.0)))
    assert shown(compare(instance))["estimated_usd"] == pytest.approx(5.0)


# Not told --------------------------------------------------------------------------------------------


def test_no_data_is_told_with_what_may_be_the_reason(
    s3: str, project: str, instance: dg.DagsterInstance
) -> None:
    assert compare(instance).passed  # nothing ran, and nothing was charged
    estimate(instance, 1.0)
    found = compare(instance)
    assert not found.passed
    for words in (f"Project={project} on 2026-01-31", "24 hours", "cost allocation tag", "Billing"):
        assert words in str(found.description)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", ("ce:GetCostAndUsage", "bootstrap/emr-stack.yaml", "be enabled once")),
        ("DataUnavailableException", ("has no data yet",)),
        ("ValidationException", ("does not answer",)),
    ],
)
def test_what_cost_explorer_answers_instead_is_told(
    s3: str,
    project: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    words: tuple[str, ...],
) -> None:
    def refuse(self: CostExplorerBackend, body: str) -> dict[str, Any]:
        raise JsonRESTError(code, "said by AWS")

    monkeypatch.setattr(CostExplorerBackend, "get_cost_and_usage", refuse)
    found = compare(instance)
    assert not found.passed
    for word in ("said by AWS", *words):
        assert word in str(found.description)


def test_a_network_that_is_away_is_told(
    s3: str, project: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = compare(instance)
    assert not found.passed
    assert "Cost Explorer does not answer" in str(found.description)


def test_another_currency_is_not_taken_for_dollars(
    s3: str, project: str, instance: dg.DagsterInstance
) -> None:
    will_answer(s3, answer((COMPUTE, "BoxUsage:m5.xlarge", 7.0), unit="CNY"))
    found = compare(instance)
    assert not found.passed
    assert "counts in CNY, not in USD" in str(found.description)
    assert "real_usd" not in found.metadata


def test_a_day_that_is_none_is_refused(project: str, instance: dg.DagsterInstance) -> None:
    job = definitions(Settings()).resolve_job_def("compare_costs")
    config = {"ops": {"aws_bill_real_cost": {"config": {"day": "31.01.2026"}}}}
    with pytest.raises(Exception, match=r"31\.01\.2026"):
        job.execute_in_process(instance=instance, run_config=config)
