"""What all assets share: run a stage into a fresh version, audit it, publish it, tell Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from upath import UPath

from fruits_assets.resources.lake import REPORT, Lake
from fruits_assets.resources.published import (
    ConflictError,
    Version,
    derived_data_version,
    refuse_damaged,
)
from fruits_assets.resources.spark import SparkRunner

if TYPE_CHECKING:
    from fruits_assets.stages.stage import Stage, StageResult
    from fruits_assets.stages.stored import Output

GROUP = "fruits"
OWNERS = ["team:fruits"]
REPORT_FILE = "report.html"  # of run_report, which shows what all assets are

Params = TypeVar("Params")
# Column to the columns, by asset, that it comes from.
ColumnLineage = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Table:
    """The descriptions of an asset's columns, and where each comes from.

    A column that ends in `_1` stands for all of its series: for the UI, these are one.
    """

    descriptions: Mapping[str, str]
    lineage: ColumnLineage

    def schema(self, types: Mapping[str, str]) -> dg.TableSchema:
        """For the UI; columns without a description of their own go without."""
        return dg.TableSchema(
            [
                dg.TableColumn(shown, types[name], self.descriptions.get(name))
                for name, shown in _series(types).items()
            ]
        )

    def column_lineage(self, columns: Iterable[str]) -> dg.TableColumnLineage:
        """For the UI."""
        return dg.TableColumnLineage(
            {
                shown: [
                    dg.TableColumnDep(dg.AssetKey(asset), source)
                    for asset, source in self.lineage.get(name, ())
                ]
                for name, shown in _series(columns).items()
            }
        )


def _series(columns: Iterable[str]) -> dict[str, str]:
    """Columns and what they are called for people: of `pc_1`, `pc_2` and so on only the first, for all."""
    shown: dict[str, str] = {}
    for name in columns:
        series, _, number = name.rpartition("_")
        first = f"{series}_1"
        if number.isdigit() and first in shown:
            shown[first] = f"{first} to {name}"
        else:
            shown[name] = name
    return shown


Checks = Callable[[Mapping[str, Any]], Sequence[dg.AssetCheckResult]]


@dataclass(frozen=True)
class Published:
    """A published version, what its stage told, its checks, and what its columns mean.

    It `is_new` unless it was there before the run.
    """

    version: Version
    is_new: bool
    facts: Mapping[str, Any]
    checks: Sequence[dg.AssetCheckResult]
    table: Table

    def result(self, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
        """The asset's return value."""
        return dg.MaterializeResult(
            metadata=shown(self.version, self.table, metadata),
            check_results=self.checks,
            data_version=dg.DataVersion(self.version.data_version),
        )


def run_and_publish(
    context: dg.AssetExecutionContext,
    spark: SparkRunner,
    lake: Lake,
    stage: Stage[Params],
    inputs: Mapping[str, Version],
    params: Params,
    table: Table,
    checks: Checks,
    told_apart_by: Sequence[str] = (),
    stable_files: Sequence[str] = (),
    beside: Mapping[str, Version | None] = MappingProxyType({}),
    recorded_params: Mapping[str, Any] | None = None,
    is_unchanged: Callable[[Mapping[str, Any]], bool] = lambda facts: True,
) -> Published:
    """Run a stage over versions of its inputs, audit what it wrote, and publish that if it passes.

    Args:
        beside: further versions for the stage, of which the result does not follow.
        recorded_params: what the version says of its parameters; None means all of `params`.

    See `make_and_publish` for the others, and for what is raised.
    """
    stored = {name: used.stored for name, used in {**inputs, **beside}.items() if used}
    return make_and_publish(
        context,
        lake,
        lambda output: spark.run(context, stage, stored, output, params),
        inputs,
        recorded_params or asdict(params),  # type: ignore[call-overload]
        table,
        checks,
        told_apart_by,
        stable_files,
        is_unchanged,
    )


def make_and_publish(
    context: dg.AssetExecutionContext,
    lake: Lake,
    make: Callable[[Output], StageResult],
    inputs: Mapping[str, Version],
    settings: Mapping[str, Any],
    table: Table,
    checks: Checks,
    told_apart_by: Sequence[str] = (),
    stable_files: Sequence[str] = (),
    is_unchanged: Callable[[Mapping[str, Any]], bool] = lambda facts: True,
) -> Published:
    """Make a version from versions of its inputs, audit what was written, and publish that if it passes.

    Where nothing that the published version follows from has changed, that stays, and nothing is made.

    Args:
        settings: what the version says of its parameters.
        checks: from the facts that are told of the result; if a blocking one fails, nothing is published.
        told_apart_by: facts of the result that, with the inputs and the code, decide what the data
            is; none means that the parameters do.
        stable_files: see `Lake.publish`.
        is_unchanged: from the facts of the published version, whether what it was made of beside its inputs
            is as it was.

    Raises:
        dagster.Failure: a blocking check has failed; names it and its numbers.
        ConflictError: another run has published something else meanwhile.
    """
    asset = context.asset_key.to_user_string()

    def unchanged() -> Published | None:
        found = lake.unchanged(asset, code_version(context), inputs, settings)
        if found is None or not is_unchanged(found[1]):
            return None
        version, facts = found
        context.log.info(f"{asset}: nothing has changed since version {version.number}, which stays")
        lake.tidy(version, stable_files)
        return Published(version, False, facts, audited(context, checks(facts)), table)

    if (before := unchanged()) is not None:
        return before
    for used in inputs.values():
        refuse_damaged(used)
    try:
        with lake.new_version(asset, version_name(context)) as output:
            result = make(output)
            passed = audited(context, checks(result.metadata))
            identity = {name: result.metadata[name] for name in told_apart_by} or settings
            version = lake.publish(
                asset,
                output,
                result,
                data_version=derived_data_version(code_version(context), inputs, identity),
                code_version=code_version(context),
                inputs=inputs,
                params=settings,
                stable_files=stable_files,
            )
    except ConflictError:
        # What the other run has published may be just what this one was about to.
        lake.look_again(asset)
        if (theirs := unchanged()) is None:
            raise
        return theirs
    return Published(version, True, result.metadata, passed, table)


def audited(
    context: dg.AssetExecutionContext, checks: Sequence[dg.AssetCheckResult]
) -> Sequence[dg.AssetCheckResult]:
    """The checks, told in the log where they failed.

    Raises:
        dagster.Failure: a blocking one has failed. The checks are recorded nevertheless.
    """
    blocking = {spec.name for spec in context.assets_def.check_specs if spec.blocking}
    failed = [check for check in checks if not check.passed]
    for check in failed:
        context.log.warning(f"Check failed: {_in_words(check)}")
    refused = [check for check in failed if check.check_name in blocking]
    if not refused:
        return checks
    for check in checks:
        step = context.op_execution_context.get_step_execution_context()
        context.log_event(check.to_asset_check_evaluation(step))
    raise dg.Failure(
        f"{context.asset_key.to_user_string()} is not published, what was current stays so: "
        + "; ".join(map(_in_words, refused)),
        allow_retries=False,
    )


def _in_words(check: dg.AssetCheckResult) -> str:
    numbers = ", ".join(f"{name} {value.value}" for name, value in check.metadata.items())
    return f"{check.check_name} ({numbers})" + (f". {check.description}" if check.description else "")


def version_name(context: dg.AssetExecutionContext) -> str:
    """Each attempt of each run writes into a folder of its own."""
    return f"{context.run_id}-{context.retry_number}"


def code_version(context: dg.AssetExecutionContext) -> str:
    """The code version of the asset that is being materialized."""
    return str(context.assets_def.specs_by_key[context.asset_key].code_version)


def shown(version: Version, table: Table, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the UI shows of a version: where the report is, pictures, numbers with four digits, tables."""

    def place(value: Any) -> int:
        return (
            0 if isinstance(value, dg.MarkdownMetadataValue) else 1 + isinstance(value, dg.TableMetadataValue)
        )

    of_asset = sorted(metadata.items(), key=lambda item: place(item[1]))
    return {
        "report": dg.MetadataValue.path(str(UPath(version.uri).parent / REPORT / REPORT_FILE)),
        **{name: _rounded(value) for name, value in of_asset},
        "dagster/row_count": version.row_count,
        "dagster/uri": dg.MetadataValue.path(version.uri),
        "dagster/column_schema": table.schema(version.schema),
        "dagster/column_lineage": table.column_lineage(version.schema),
        "version": version.number,
        "libraries": dg.MetadataValue.json(dict(version.libraries)),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dg.TableMetadataValue):
        rows = [{name: _rounded(cell) for name, cell in row.data.items()} for row in value.records]
        return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=value.schema)
    return float(f"{value:.4g}") if isinstance(value, float) else value


def check(
    name: str,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    remedy: str | None = None,
    **numbers: Any,
) -> dg.AssetCheckResult:
    """A check's result, with the numbers that it was decided by, and if it failed, what to do."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=severity,
        metadata=numbers,
        description=None if passed else remedy,
    )
