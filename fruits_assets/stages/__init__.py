"""The work: plain PySpark functions that run alike in a local session and on a cluster.

Every stage has one shape,

    stage(spark, inputs, output, params) -> StageResult

where `inputs` maps a name to a URI, `output` is the URI of a folder of its own, and `params` is a
frozen dataclass. No Dagster, no TensorFlow, no environment variables: this folder, with
`photos/` and `mobilenet/extractor.py`, is all that a cluster gets.
"""
