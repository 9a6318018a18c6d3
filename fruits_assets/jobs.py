"""What starts the graph: by hand, and every night if switched on; and what asks for its cost."""

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

compare_costs = dg.define_asset_job(
    "compare_costs",
    selection=dg.AssetSelection.checks_for_assets("aws_bill"),
    description="Compares what AWS has charged for yesterday with what runs have estimated, for 0.01 USD.",
    executor_def=dg.in_process_executor,
)

every_evening = dg.ScheduleDefinition(
    name="every_evening",
    job=compare_costs,
    # Cost Explorer lags by up to a day.
    cron_schedule="30 23 * * *",
    execution_timezone="UTC",
    description="Compares yesterday's costs. There, and on, with FRUITS_EMR_REAL_COST only.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
