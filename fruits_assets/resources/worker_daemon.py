"""The process that Spark's Python workers are forked from: what they all need is imported once, here.

Spark puts a zip of PySpark before where that is installed, and Python keeps nothing compiled of what is in a
zip: every process would compile it anew, which takes it a second or two. A worker also looks for garbage
after every task, and in so many modules, where there is none, that takes it 30 ms. Of these imports only
Arrow's allocator starts a thread; it knows what to do about that in a fork.

Arrow imports pandas as soon as it is given a list, to know pandas' objects if it should meet some. No stage
has any, and every worker would import it, a third of a second, and look for garbage in there, 10 ms a task.
Arrow looks for pandas once in Cython and once in C++, and here it finds none.
"""

import gc
import sys
from contextlib import suppress

sys.path[:] = [place for place in sys.path if not place.endswith(("/pyspark.zip", "-src.zip"))]

import pyspark.worker  # noqa: E402, F401
from pyspark.daemon import manager  # noqa: E402

with suppress(ImportError):  # the task that needs it will say so
    import pyarrow as pa

    sys.modules["pandas"] = None  # type: ignore[assignment]
    for _ in range(2):
        with suppress(AttributeError):  # it asks None for its version
            pa.array([0])
    del sys.modules["pandas"]

    import fruits_assets.stages.fruit_classifier
    import fruits_assets.stages.mobilenet_features
    import fruits_assets.stages.pca_features_csv
    import fruits_assets.stages.raw_images
    import fruits_assets.stages.scaled_features  # noqa: F401

gc.collect()
gc.freeze()
manager()
