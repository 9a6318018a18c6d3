"""What starts the graph when there are new photos."""

import dagster as dg

from fruits_assets.jobs import fruits_pipeline
from fruits_assets.resources.image_source import ImageSource


@dg.sensor(
    job=fruits_pipeline,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
)
def source_changed(context: dg.SensorEvaluationContext, images: ImageSource) -> dg.RunRequest | dg.SkipReason:
    """Requests a run when the image source's listing changed. Off until switched on."""
    fingerprint = images.fingerprint()
    if fingerprint == context.cursor:
        return dg.SkipReason(f"No change in {images.uri} since the last look.")
    context.update_cursor(fingerprint)
    return dg.RunRequest(run_key=fingerprint)
