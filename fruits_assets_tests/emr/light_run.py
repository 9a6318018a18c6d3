"""Runs of one asset whose stage takes no Spark."""

import dagster as dg

from fruits_assets.resources.emr import EmrSpark
from fruits_assets.resources.spark import SparkRunner
from fruits_assets.stages.stored import Output
from fruits_assets_tests.emr.light_stage import Params, light

NOTHING = Params()


def run(
    emr: EmrSpark,
    lake: str,
    params: Params = NOTHING,
    instance: dg.DagsterInstance | None = None,
    **changed: object,
) -> dg.ExecuteInProcessResult:
    """Materialize the asset in this process, with some settings changed."""

    @dg.asset
    def light_asset(context: dg.AssetExecutionContext, spark: SparkRunner) -> dg.MaterializeResult:
        output = Output(f"{lake}/light_asset", f"{context.run_id}-{context.retry_number}")
        result = spark.run(context, light, {}, output, params)
        return dg.MaterializeResult(metadata={"environment": result.metadata["environment"]})

    # A copy would be the one that it was made of, for Dagster.
    spark = EmrSpark(**emr.model_dump() | changed)
    return dg.materialize([light_asset], resources={"spark": spark}, instance=instance, raise_on_error=False)


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The message of the one failed step."""
    assert not result.success
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    error = event.step_failure_data.error
    assert error is not None
    return str(error.cause or error)
