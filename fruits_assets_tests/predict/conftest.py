"""A lake that has a classifier."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from fruits_assets_tests.graph import Graph, Materialized
from fruits_assets_tests.predict.classifiers import publish_classifier


@pytest.fixture(scope="session")
def classified(
    materialized: Materialized, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Graph:
    """The small graph with a classifier over it; not to be changed."""
    graph = materialized.graph.copy(tmp_path_factory.mktemp("classified"))
    publish_classifier(spark, graph)
    return graph
