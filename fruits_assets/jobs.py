"""What starts the graph: by hand, and every night if switched on."""

import dagster as dg

# One process and one JVM for the whole run: a process per asset would start Dagster and Spark anew.
fruits_pipeline = dg.define_asset_job(
    "fruits_pipeline",
    selection=dg.AssetSelection.groups("fruits"),
    description="From image to component: every asset of the graph, in one process.",
    executor_def=dg.in_process_executor,
)

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=fruits_pipeline,
    cron_schedule="0 2 * * *",
    execution_timezone="Europe/Paris",
    description="Runs the whole graph at 02:00. Off until switched on.",
    default_status=dg.DefaultScheduleStatus.STOPPED,
)
