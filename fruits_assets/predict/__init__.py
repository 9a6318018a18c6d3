"""One photo in, its fruit out, by what the lake has published: no Dagster, no Spark, no TensorFlow here."""
