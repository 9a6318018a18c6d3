"""A lake that has a classifier."""

from __future__ import annotations

import pytest

from fruits_assets_tests.graph import Graph, Materialized


@pytest.fixture(scope="session")
def classified(materialized: Materialized) -> Graph:
    """The small graph, whose classifier was trained on a few photos of each label; not to be changed."""
    return materialized.graph
