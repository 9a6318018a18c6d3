"""Seconds to scale features and fit their principal components, against Spark ML's own estimators.

Both read the same table in the same Spark session, on all cores of this machine, and must find the same
components. See README.md beside this file for the method.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from measuring import Cost, figure_rows, scratch_folder, table, timed
from pyspark import StorageLevel
from pyspark.ml.feature import PCA, PCAModel, StandardScaler, StandardScalerModel
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fruits_assets.mobilenet.extractor import N_FEATURES
from fruits_assets.resources.spark import LocalSpark
from fruits_assets.stages import mobilenet_features, pca_model, scaled_features
from fruits_assets.stages.arrow import Matrix, fixed_length_arrays
from fruits_assets.stages.moments import column_moments
from fruits_assets.stages.parquet import spread, write_rows
from fruits_assets.stages.stored import Output, Stored, StoredFile, StoredTable

MAX_RELATIVE_DIFFERENCE = 1e-9  # of an explained variance, and of the scaler's means and deviations
MAX_COMPONENT_DIFFERENCE = 1e-6  # of an entry, 0 to 1

_N_FACTORS, _NOISE = 512, 0.1
_N_LABELS = 130
_ROWS_PER_TASK = 1024
_WARM_UP_ROWS = 1024


@dataclass(frozen=True)
class Fit:
    """Scaler and components from one table; `components` is (n_features, n_components)."""

    mean: Matrix
    std: Matrix
    components: Matrix
    explained_variance: Matrix


@dataclass(frozen=True)
class Session:
    """A Spark session, how long it took to start, and what its JVM computes linear algebra with."""

    spark: SparkSession
    seconds: float
    blas: str


def start_session(openblas: str | None) -> Session:
    """The product's local Spark, but fair to work in the JVM.

    The product stops the JVM at its quick compiler, as its own arithmetic is elsewhere. Spark ML's is in
    the JVM, so here the optimising compiler stays on, and OpenBLAS is used where there is one.
    """
    log4j = resources.files("fruits_assets.resources") / "log4j2.properties"
    options = [f"-Dlog4j2.configurationFile={Path(str(log4j)).as_uri()}"]
    if openblas is not None:
        options += [f"-Ddev.ludovic.netlib.{name}.nativeLibPath={openblas}" for name in ("blas", "lapack")]
        # One thread per task, as Spark's guide to native BLAS has it. NumPy here has read its own already.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
    started = time.monotonic()
    spark = LocalSpark(spark_conf={"spark.driver.extraJavaOptions": " ".join(options)}).session
    seconds = time.monotonic() - started
    return Session(spark, seconds, _linear_algebra(spark, openblas))


def find_openblas() -> str | None:
    """Path of the OpenBLAS that the system's linker knows, None without one."""
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    paths = [line.split(" => ")[1] for line in listed.splitlines() if "libopenblas" in line]
    return min(paths, default=None)


def _linear_algebra(spark: SparkSession, openblas: str | None) -> str:
    jvm: Any = spark.sparkContext._jvm
    netlib = jvm.dev.ludovic.netlib
    instances = {"blas": netlib.blas.BLAS, "lapack": netlib.lapack.LAPACK}
    names = [instances[name].getInstance().getClass().getSimpleName() for name in ("blas", "lapack")]
    if all(name.startswith("JNI") for name in names):
        return f"native {openblas or 'libblas.so.3, liblapack.so.3'} ({', '.join(names)})"
    why = "which did not load" if openblas else "libopenblas is not installed"
    return f"Java ({', '.join(names)}): {why}"


def write_features(spark: SparkSession, folder: Path, n_rows: int, seed: int) -> Stored:
    """Write a features table: factors of falling weight and noise, in columns of many scales."""
    output = Output(str(folder), "synthetic-0")
    starts = range(0, n_rows, _ROWS_PER_TASK)
    files = spread(spark, [(start, min(start + _ROWS_PER_TASK, n_rows)) for start in starts]).map(
        _synthesize(seed, output)
    )
    return Stored(StoredTable(output.asset, files.collect()), output.folder)


def _synthesize(seed: int, output: Output) -> Callable[[tuple[int, int]], StoredFile]:
    def synthesize(bounds: tuple[int, int]) -> StoredFile:
        of_columns = np.random.default_rng(seed)
        loadings = of_columns.standard_normal((_N_FACTORS, N_FEATURES))
        loadings /= np.sqrt(np.arange(1, _N_FACTORS + 1))[:, None]
        scale = of_columns.uniform(0.05, 1.0, N_FEATURES)
        offset = of_columns.uniform(0.1, 2.0, N_FEATURES)
        ids = np.arange(*bounds)
        of_rows = np.random.default_rng([seed, int(ids[0])])
        values = of_rows.standard_normal((len(ids), _N_FACTORS)) @ loadings
        values += _NOISE * of_rows.standard_normal(values.shape)
        labels = [f"label {number % _N_LABELS}" for number in ids]
        paths = [f"{label}/{number:08}.jpg" for label, number in zip(labels, ids, strict=True)]
        features = fixed_length_arrays((values * scale + offset).astype(np.float32))
        columns = [pa.array(paths), pa.array(labels), pa.array(["0" * 64] * len(ids)), features]
        return write_rows(output, pa.table(columns, schema=mobilenet_features.SCHEMA))

    return synthesize


def fit_as_the_stages_do(spark: SparkSession, features: Stored, scaled: Stored, n_components: int) -> Fit:
    """What `scaled_features` and `pca_model` compute from the features and from the scaled features."""
    moments = column_moments(spark, features.table, "features", N_FEATURES)
    found = pca_model.decompose(column_moments(spark, scaled.table, "scaled_features", N_FEATURES, full=True))
    return Fit(
        moments.mean,
        moments.std,
        found.components[:, :n_components],
        found.explained_variance_ratio[:n_components],
    )


def fit_by_spark_ml(spark: SparkSession, features: Stored, scaled: Stored, n_components: int) -> Fit:
    """StandardScaler and PCA of Spark ML; the scaled vectors, which PCA reads more than once, are kept."""
    vectors = _vectors(spark, features, "features")
    scaler = StandardScaler(withMean=True, withStd=True, inputCol="features", outputCol="scaled_features")
    scaler_model = scaler.fit(vectors)
    scaled_vectors = _vectors(spark, scaled, "scaled_features")
    scaled_vectors.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        pca = PCA(k=n_components, inputCol="scaled_features", outputCol="pca_features")
        return _fit(scaler_model, pca.fit(scaled_vectors))
    finally:
        scaled_vectors.unpersist()


def _vectors(spark: SparkSession, stored: Stored, column: str) -> DataFrame:
    return spark.read.parquet(*stored.table.uris).select(array_to_vector(F.col(column)).alias(column))


def _fit(scaler: StandardScalerModel, model: PCAModel) -> Fit:
    return Fit(
        scaler.mean.toArray(),
        scaler.std.toArray(),
        model.pc.toArray(),
        model.explainedVariance.toArray(),
    )


def run_stages(spark: SparkSession, features: Stored, folder: Path, n_components: int) -> Stored:
    """The two stages as they are, with all they write and check; returns the scaled features."""
    output = Output(str(folder / "scaled"), "run-0")
    result = scaled_features.scaled_features(
        spark, {"mobilenet_features": features}, output, scaled_features.Params()
    )
    scaled = result.stored(output)
    params = pca_model.Params(n_components, None)
    pca_model.pca_model(spark, {"scaled_features": scaled}, Output(str(folder / "pca"), "run-0"), params)
    return scaled


def relative_difference(found: Matrix, expected: Matrix, scale: Matrix | None = None) -> float:
    """Largest difference of an entry, as a share of the expected one or of `scale`."""
    return float((np.abs(found - expected) / np.abs(expected if scale is None else scale)).max())


def component_difference(found: Matrix, expected: Matrix) -> float:
    """Largest difference of an entry between components of either sign."""
    signs = np.sign((found * expected).sum(axis=0))
    return float(np.abs(found - expected * signs).max())


def run(
    n_rows: int, n_components: int, rounds: int, seed: int, session: Session, scratch: Path
) -> dict[str, Any]:
    """Run everything in `scratch`; returns the figures."""
    spark = session.spark
    folder, few = scratch / "features", scratch / "few_features"
    print(f"writing {n_rows:,} rows of {N_FEATURES} features", flush=True)
    features = write_features(spark, folder, n_rows, seed)
    few_features = write_features(spark, few, min(n_rows, _WARM_UP_ROWS), seed + 1)

    print("running the two stages as they are", flush=True)
    few_scaled = run_stages(spark, few_features, few, n_components)
    scaled, stages = timed(partial(run_stages, spark, features, folder, n_components))

    contenders = {"the stages' fits": fit_as_the_stages_do, "Spark ML": fit_by_spark_ml}
    startup_s = {}
    for name, contender in contenders.items():
        print(f"warming up {name}", flush=True)
        startup_s[name] = timed(partial(contender, spark, few_features, few_scaled, n_components))[1].seconds
    fits: dict[str, Fit] = {}
    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds):
        # The other one first in every second round, so that neither always has the warmer machine.
        for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
            fits[name], cost = timed(partial(contenders[name], spark, features, scaled, n_components))
            costs[name].append(cost)
            print(f"round {number + 1}, {name}: {cost.seconds:.1f} s", flush=True)
    ours, theirs = (min(costs[name], key=lambda cost: cost.seconds) for name in contenders)

    n_cores = spark.sparkContext.defaultParallelism
    our_fit, their_fit = (fits[name] for name in contenders)
    return {
        "n_rows": n_rows,
        "n_columns": N_FEATURES,
        "n_components": n_components,
        "n_cores": n_cores,
        "blas": session.blas,
        "seconds": ours.seconds,
        "spark_ml_seconds": theirs.seconds,
        "ratio_to_spark_ml": theirs.seconds / ours.seconds,
        "cpu_seconds": ours.cpu_seconds,
        "spark_ml_cpu_seconds": theirs.cpu_seconds,
        "cpu_ratio_to_spark_ml": theirs.cpu_seconds / ours.cpu_seconds if ours.cpu_seconds else None,
        "cores_elsewhere": ours.cores_elsewhere,
        "spark_ml_cores_elsewhere": theirs.cores_elsewhere,
        "all_seconds": [cost.seconds for cost in costs["the stages' fits"]],
        "spark_ml_all_seconds": [cost.seconds for cost in costs["Spark ML"]],
        "stages_seconds": stages.seconds,
        "spark_startup_s": session.seconds,
        "startup_s": startup_s["the stages' fits"],
        "spark_ml_startup_s": startup_s["Spark ML"],
        "explained_by_components": float(our_fit.explained_variance.sum()),
        "max_relative_difference": relative_difference(
            our_fit.explained_variance, their_fit.explained_variance
        ),
        "max_component_difference": component_difference(our_fit.components, their_fit.components),
        "max_scaler_difference": max(
            relative_difference(our_fit.mean, their_fit.mean, their_fit.std),
            relative_difference(our_fit.std, their_fit.std),
        ),
    }


def for_people(figures: Mapping[str, Any]) -> str:
    """The figures as a table, with the ratios and differences below it."""
    title = f"{figures['n_rows']:,} x {figures['n_columns']}, {figures['n_cores']} cores"
    lines = [
        ("both fits, reading included, s", "seconds", ".2f"),
        ("CPU time, s", "cpu_seconds", ".2f"),
        ("cores busy with other programs", "cores_elsewhere", ".1f"),
        ("first small run (start-up), s", "startup_s", ".2f"),
        ("whole stages, writing and checking, s", "stages_seconds", ".2f"),
    ]
    return "\n".join(
        [
            table(title, ["the project", "Spark ML"], figure_rows(figures, ["", "spark_ml_"], lines)),
            f"ratio of the times, Spark ML to the project: {figures['ratio_to_spark_ml']:.2f}",
            f"ratio of the CPU times: {figures['cpu_ratio_to_spark_ml'] or float('nan'):.2f}",
            f"Spark ML's linear algebra: {figures['blas']}",
            f"{figures['n_components']} components explain {figures['explained_by_components']:.1%}",
            "largest differences: "
            f"explained variance {figures['max_relative_difference']:.2g} (relative), "
            f"components {figures['max_component_difference']:.2g}, "
            f"scaler {figures['max_scaler_difference']:.2g}",
        ]
    )


def main() -> None:
    """Command line; the last line is JSON, and the exit status 1 when the two do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=22688, help="of the table (22688)")
    parser.add_argument(
        "--columns",
        type=int,
        choices=[N_FEATURES],
        default=N_FEATURES,
        help="what the stages are made for, and nothing else",
    )
    parser.add_argument("--components", type=int, default=100, help="how many to fit (100)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, of which the best counts (2)")
    parser.add_argument("--seed", type=int, default=0, help="of the features (0)")
    parser.add_argument("--openblas", default=find_openblas(), help="its .so for Spark ML (the system's)")
    arguments = parser.parse_args()
    if arguments.components >= arguments.rows:
        parser.error("fewer components than rows are needed")

    session = start_session(arguments.openblas)
    print(f"Spark ML's linear algebra: {session.blas}", flush=True)
    with scratch_folder() as scratch:
        figures = run(
            arguments.rows, arguments.components, arguments.rounds, arguments.seed, session, scratch
        )
        session.spark.stop()
    print(f"\n{for_people(figures)}\n\n{json.dumps(figures)}", flush=True)
    limits = {
        "max_relative_difference": MAX_RELATIVE_DIFFERENCE,
        "max_scaler_difference": MAX_RELATIVE_DIFFERENCE,
        "max_component_difference": MAX_COMPONENT_DIFFERENCE,
    }
    broken = [
        f"{name} is {figures[name]:.2g}, more than {limit:g}"
        for name, limit in limits.items()
        if not figures[name] <= limit
    ]
    if broken:
        sys.exit("The two do not agree: " + "; ".join(broken))


if __name__ == "__main__":
    main()
