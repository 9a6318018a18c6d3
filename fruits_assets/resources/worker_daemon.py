"""The process that Spark's Python workers are forked from, with PySpark from where it is installed.

Spark puts a zip of PySpark before that, and Python keeps nothing compiled of what is in a zip: every process
would compile it anew, which takes it a second or two.
"""

import sys

sys.path[:] = [place for place in sys.path if not place.endswith(("/pyspark.zip", "-src.zip"))]

from pyspark.daemon import manager  # noqa: E402

manager()
