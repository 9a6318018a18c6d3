"""The network that every worker gets."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field
from upath import UPath

from fruits_assets.assets.config import checked, config_of
from fruits_assets.assets.materialization import (
    GROUP,
    OWNERS,
    Table,
    audited,
    check,
    code_version,
    shown,
    version_name,
)
from fruits_assets.resources.failures import failed_in_words
from fruits_assets.resources.lake import Lake
from fruits_assets.resources.published import Version, derived_data_version
from fruits_assets.resources.scratch import scratch_folder
from fruits_assets.resources.weights import MobileNetWeights

if TYPE_CHECKING:
    from fruits_assets.mobilenet.convert import ConversionReport

TABLE = Table(
    descriptions={
        "weights": "Where the weights are from.",
        "precision": "Of weights and activations: float32 or int8.",
        "fingerprint": "SHA-256 of the flatbuffer.",
        "n_parameters": "Number of weights.",
        "size_bytes": "Size of the flatbuffer in bytes.",
        "max_difference": "Largest difference of a feature from what Keras gives, on a probe batch.",
        "min_cosine": "Smallest cosine of an image's features with those that Keras gives, on that batch.",
        "keras_version": "Version of Keras that loaded the weights.",
        "tensorflow_version": "Version of TensorFlow that converted them.",
    },
    lineage={"weights": [("keras_weights", "weights")]},
)

keras_weights = dg.AssetSpec(
    "keras_weights",
    description="The weights of FRUITS_WEIGHTS: Keras' ImageNet ones, a .h5 file or the demo's.",
    group_name=GROUP,
    kinds={"keras"},
)


class Precision(Enum):
    """Of the network's weights and activations."""

    float32 = "float32"
    int8 = "int8"


class ModelConfig(dg.Config):
    """Configuration of `mobilenet_model`."""

    precision: Precision = Field(
        default=Precision.float32,
        description="int8 is about twice as fast and a third of the size; its features differ a little, and "
        "those of the one cannot be compared with those of the other.",
    )


@dg.asset(
    deps=[keras_weights],
    config_schema=checked(ModelConfig),
    group_name=GROUP,
    owners=OWNERS,
    kinds={"keras", "tensorflow"},
    code_version="3",
    check_specs=[
        dg.AssetCheckSpec(
            "matches_keras",
            asset="mobilenet_model",
            description="On a probe batch the flatbuffer gives what Keras gives, within 1e-4; as int8, "
            "with a cosine of at least 0.99.",
            blocking=True,
        )
    ],
)
@failed_in_words()
def mobilenet_model(
    context: dg.AssetExecutionContext, lake: Lake, weights: MobileNetWeights
) -> dg.MaterializeResult:
    """Headless MobileNetV2 as a frozen LiteRT flatbuffer: 224 x 224 RGB pixels in, 1280 features out.

    Workers run this file on one thread each. They need no TensorFlow. Of unchanged weights it is made once;
    that of the demo's weights comes with this package.
    """
    import pyarrow as pa

    from fruits_assets.mobilenet import convert
    from fruits_assets.mobilenet.conversion_cache import converted
    from fruits_assets.mobilenet.extractor import FLATBUFFER
    from fruits_assets.mobilenet.weights import identity
    from fruits_assets.stages.parquet import write_rows
    from fruits_assets.stages.stage import StageResult, column_types
    from fruits_assets.stages.stored import ROWS

    precision = config_of(context, ModelConfig).precision.value
    origin = identity(weights.source, precision)
    if (found := lake.unchanged("mobilenet_model", code_version(context), {}, origin)) is not None:
        version, report = found[0], convert.ConversionReport(**found[1])
        lake.tidy(version)
        context.log.info(f"mobilenet_model: of these weights it is there already, version {version.number}")
        return materialization(version, report, reused=True, passed=audited(context, checks(report)))
    with (
        tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch,
        lake.new_version("mobilenet_model", version_name(context)) as output,
    ):
        made = Path(scratch)
        report = converted(origin, made, context.log.info)
        passed = audited(context, checks(report))
        (UPath(output.folder) / FLATBUFFER).write_bytes((made / FLATBUFFER).read_bytes())
        rows = pa.Table.from_pylist([asdict(report)])
        version = lake.publish(
            "mobilenet_model",
            output,
            StageResult(1, column_types(rows.schema), {ROWS: [write_rows(output, rows)]}, asdict(report)),
            data_version=derived_data_version(code_version(context), {}, {"fingerprint": report.fingerprint}),
            code_version=code_version(context),
            inputs={},
            params=origin,
        )
    return materialization(version, report, reused=False, passed=passed)


def materialization(
    version: Version, report: "ConversionReport", reused: bool, passed: Sequence[dg.AssetCheckResult]
) -> dg.MaterializeResult:
    """What the UI shows."""
    from fruits_assets.mobilenet.extractor import FLATBUFFER

    return dg.MaterializeResult(
        metadata={
            **shown(
                version,
                TABLE,
                {
                    "weights": report.weights,
                    "precision": report.precision,
                    "reused": reused,
                    "fingerprint": report.fingerprint[:12],
                    "parameters": report.n_parameters,
                    "size_mb": report.size_bytes / 1e6,
                    "max_difference_from_keras": report.max_difference,
                    "min_cosine_with_keras": report.min_cosine,
                    "keras_version": report.keras_version,
                    "tensorflow_version": report.tensorflow_version,
                },
            ),
            "dagster/uri": dg.MetadataValue.path(f"{version.folder}/{FLATBUFFER}"),
        },
        data_version=dg.DataVersion(version.data_version),
        check_results=passed,
    )


def checks(report: "ConversionReport") -> list[dg.AssetCheckResult]:
    """The check, from the comparison on the probe batch."""
    from fruits_assets.mobilenet.convert import MAX_DIFFERENCE, MIN_COSINE, is_close
    from fruits_assets.mobilenet.weights import INT8

    limit: dict[str, Any] = {"maximum": MAX_DIFFERENCE}
    if report.precision == INT8:
        limit = {"minimum_cosine": MIN_COSINE}
    return [
        check(
            "matches_keras",
            is_close(report.precision, report.max_difference, report.min_cosine),
            precision=report.precision,
            max_difference=report.max_difference,
            min_cosine=report.min_cosine,
            **limit,
        )
    ]
