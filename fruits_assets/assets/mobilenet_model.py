"""The network that every worker gets."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from upath import UPath

from fruits_assets.assets.materialization import (
    GROUP,
    OWNERS,
    Table,
    check,
    code_version,
    table_metadata,
    version_name,
)
from fruits_assets.resources.lake import Lake, derived_data_version
from fruits_assets.resources.weights import MobileNetWeights

if TYPE_CHECKING:
    from fruits_assets.mobilenet.convert import ConversionReport

TABLE = Table(
    descriptions={
        "images": "Input of the network: RGB pixels, 0 to 255.",
        "features": "Output of the network: what the layer before the classifier gives.",
    },
    lineage={"features": [("keras_weights", "weights")]},
)

keras_weights = dg.AssetSpec(
    "keras_weights",
    description="The weights of FRUITS_WEIGHTS: Keras' ImageNet ones, a .h5 file or the demo's.",
    group_name=GROUP,
    kinds={"keras"},
)


@dg.asset(
    deps=[keras_weights],
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "tensorflow"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "matches_keras",
            asset="mobilenet_model",
            description="On a probe batch the flatbuffer gives what Keras gives, within 1e-4.",
            blocking=True,
        )
    ],
)
def mobilenet_model(
    context: dg.AssetExecutionContext, lake: Lake, weights: MobileNetWeights
) -> dg.MaterializeResult:
    """Headless MobileNetV2 as a frozen LiteRT flatbuffer: 224 x 224 RGB pixels in, 1280 features out.

    Workers run this file on one thread each. They need no TensorFlow. Of unchanged weights it is made once.
    """
    from fruits_assets.mobilenet import convert
    from fruits_assets.mobilenet.extractor import FLATBUFFER
    from fruits_assets.mobilenet.weights import identity

    origin = identity(weights.source)
    with (
        tempfile.TemporaryDirectory() as scratch,
        lake.new_version("mobilenet_model", version_name(context)) as folder,
    ):
        made = Path(scratch)
        before = lake.reusable("mobilenet_model", code_version(context), **origin)
        reused = convert.converted_before(UPath(before.uri), made) if before else None
        report = reused or convert.convert_in_own_process(weights.source, made, context.log.info)
        for name in (FLATBUFFER, convert.REPORT):
            (folder / name).write_bytes((made / name).read_bytes())
        version = lake.publish(
            "mobilenet_model",
            folder.name,
            row_count=1,
            schema={"images": "uint8[n,224,224,3]", "features": "float32[n,1280]"},
            data_version=derived_data_version(code_version(context), {}, {"fingerprint": report.fingerprint}),
            code_version=code_version(context),
            inputs={},
            params=origin,
            facts=asdict(report),
        )
    return dg.MaterializeResult(
        metadata={
            "weights": report.weights,
            "reused": reused is not None,
            "fingerprint": report.fingerprint,
            "parameters": report.n_parameters,
            "size_bytes": report.size_bytes,
            "max_difference_from_keras": report.max_difference,
            "keras_version": report.keras_version,
            "tensorflow_version": report.tensorflow_version,
            **table_metadata(version, TABLE),
            "dagster/uri": dg.MetadataValue.path(f"{version.uri}/{FLATBUFFER}"),
        },
        data_version=dg.DataVersion(version.data_version),
        check_results=checks(report),
    )


def checks(report: "ConversionReport") -> list[dg.AssetCheckResult]:
    """The check, from the comparison on the probe batch."""
    from fruits_assets.mobilenet.convert import MAX_DIFFERENCE

    return [
        check(
            "matches_keras",
            report.max_difference <= MAX_DIFFERENCE,
            max_difference=report.max_difference,
            maximum=MAX_DIFFERENCE,
        )
    ]
