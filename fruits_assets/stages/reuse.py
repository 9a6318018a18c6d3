"""What a stage takes over from the previous version of its own table."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

# The input under which a stage finds the folder of that version, if there is one to take from.
PREVIOUS = "previous"

_MAX_BROADCAST_KEYS = 200_000


def spare_the_other_side(keys: DataFrame, n_keys: int) -> DataFrame:
    """Keys to be joined with a table of photos or features: a few of them are sent to where its rows are.

    Left to itself, Spark would move all photos through a shuffle to meet their keys.
    """
    return F.broadcast(keys) if n_keys <= _MAX_BROADCAST_KEYS else keys
