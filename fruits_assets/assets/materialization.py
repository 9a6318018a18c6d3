"""What all assets share: run a stage into a fresh version, publish it, tell Dagster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from fruits_assets.resources.lake import Lake, Version, derived_data_version
from fruits_assets.resources.spark import SparkRunner

if TYPE_CHECKING:
    from fruits_assets.stages.stage import Stage

GROUP = "fruits"
OWNERS = ["team:fruits"]

Params = TypeVar("Params")
# Column to the columns, by asset, that it comes from.
ColumnLineage = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Table:
    """The descriptions of an asset's columns, and where each comes from."""

    descriptions: Mapping[str, str]
    lineage: ColumnLineage

    def schema(self, types: Mapping[str, str]) -> dg.TableSchema:
        """For the UI; columns without a description of their own go without."""
        return dg.TableSchema(
            [dg.TableColumn(name, kind, self.descriptions.get(name)) for name, kind in types.items()]
        )

    def column_lineage(self, columns: Iterable[str]) -> dg.TableColumnLineage:
        """For the UI."""
        return dg.TableColumnLineage(
            {
                column: [
                    dg.TableColumnDep(dg.AssetKey(asset), source)
                    for asset, source in self.lineage.get(column, ())
                ]
                for column in columns
            }
        )


@dataclass(frozen=True)
class Published:
    """A published version, what its stage told, and the metadata that every asset shows."""

    version: Version
    facts: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def result(
        self, metadata: Mapping[str, Any], checks: Sequence[dg.AssetCheckResult]
    ) -> dg.MaterializeResult:
        """The asset's return value."""
        return dg.MaterializeResult(
            metadata={**metadata, **self.metadata},
            check_results=checks,
            data_version=dg.DataVersion(self.version.data_version),
        )


def run_and_publish(
    context: dg.AssetExecutionContext,
    spark: SparkRunner,
    lake: Lake,
    stage: Stage[Params],
    inputs: Sequence[str],
    params: Params,
    table: Table,
    told_apart_by: Sequence[str] = (),
    stable_files: Sequence[str] = (),
    previous: Version | None = None,
) -> Published:
    """Run a stage over the published versions of its inputs and publish what it wrote.

    Args:
        inputs: the assets that the stage reads.
        told_apart_by: facts of the result that, with the inputs and the code, decide what the data
            is; none means that the parameters do.
        stable_files: see `Lake.publish`.
        previous: the version that the stage may take over from, see `Lake.reusable`.
    """
    from fruits_assets.stages.reuse import PREVIOUS

    asset = context.asset_key.to_user_string()
    used = {name: lake.current(name) for name in inputs}
    with lake.new_version(asset, version_name(context)) as folder:
        uris = {name: version.uri for name, version in used.items()}
        if previous:
            uris[PREVIOUS] = previous.uri
        result = spark.run(context, stage, uris, str(folder), params)
        settings = asdict(params)  # type: ignore[call-overload]
        identity = {name: result.metadata[name] for name in told_apart_by} or settings
        version = lake.publish(
            asset,
            folder.name,
            row_count=result.row_count,
            schema=result.schema,
            data_version=derived_data_version(code_version(context), used, identity),
            code_version=code_version(context),
            inputs=used,
            params=settings,
            facts=result.metadata,
            stable_files=stable_files,
        )
    return Published(version, result.metadata, table_metadata(version, table))


def version_name(context: dg.AssetExecutionContext) -> str:
    """Each attempt of each run writes into a folder of its own."""
    return f"{context.run_id}-{context.retry_number}"


def code_version(context: dg.AssetExecutionContext) -> str:
    """The code version of the asset that is being materialized."""
    return str(context.assets_def.specs_by_key[context.asset_key].code_version)


def table_metadata(version: Version, table: Table) -> dict[str, Any]:
    """Where a published table is, how large, and what its columns mean."""
    return {
        "dagster/row_count": version.row_count,
        "dagster/uri": dg.MetadataValue.path(version.uri),
        "dagster/column_schema": table.schema(version.schema),
        "dagster/column_lineage": table.column_lineage(version.schema),
        "version": version.version,
        "libraries": dg.MetadataValue.json(dict(version.libraries)),
    }


def check(name: str, passed: bool, **numbers: Any) -> dg.AssetCheckResult:
    """A check's result, with the numbers that it was decided by."""
    return dg.AssetCheckResult(check_name=name, passed=bool(passed), metadata=numbers)
