"""The Java that Spark runs in: found, given its options, and started in half the time by an archive.

The archive has the classes of Spark as they are in memory. `python -m fruits_assets.resources.jvm` makes it,
once, with an install (it needs no more than PySpark); without it, or with another Java or Spark, Spark
starts as it always does. See JEP 350, "Dynamic CDS Archives".
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

# Of this environment, as it is for the Spark in there.
ARCHIVE: Final = Path(sys.prefix) / "share" / "fruits_assets" / "spark.jsa"

_LOG4J = Path(__file__).with_name("log4j2.properties")
_MIN_JAVA = 17
_OPTIONS = (
    f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}",
    # The work is in the Python workers. What is left for the JVM ends before its optimising compiler has
    # paid for itself, which takes half of the processor time of a short run.
    "-XX:TieredStopAtLevel=1",
    # The default collector lets the heap grow to its limit before it looks for what is no longer needed.
    # This one collects before the heap grows, and what it collects, in the little there is, takes no time.
    "-XX:+UseSerialGC",
    "-XX:MaxNewSize=64m",
    # It begins with a share of the machine's memory otherwise, and fills that before it looks for garbage.
    "-Xms64m",
    # And grows, where results pass through it, to what they take, not by two thirds more.
    "-XX:MinHeapFreeRatio=5",
    "-XX:MaxHeapFreeRatio=15",
    # An archive that does not fit, and each class that cannot be in one, being signed or generated.
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
)
_ENDS_WITHIN_S = 120


class JavaError(RuntimeError):
    """There is no Java, or it is too old; the message says how to get one."""


def require_java() -> None:
    """Look for the Java that Spark will take.

    Raises:
        JavaError: there is none that it could.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    if java is None:
        where = f"JAVA_HOME ({home}) has no bin/java" if home else "no java on the PATH"
        raise JavaError(
            f"Spark needs Java {_MIN_JAVA} or newer: {where}. Install a JRE, for instance "
            "openjdk-17-jre-headless, or set JAVA_HOME to one."
        )
    version = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = version.split('"')[1] if version.count('"') >= 2 else "unknown"
    major = found.split(".")[0]
    if not major.isdigit() or int(major) < _MIN_JAVA:
        raise JavaError(
            f"Spark needs Java {_MIN_JAVA} or newer: {java} is {found}. Install a JRE, for instance "
            "openjdk-17-jre-headless, or set JAVA_HOME to one."
        )


def java_options(*more: str) -> str:
    """Options of the JVM, as Spark's `extraJavaOptions` has them."""
    archive = (f'"-XX:SharedArchiveFile={ARCHIVE}"',) if ARCHIVE.exists() else ()
    return " ".join([*_OPTIONS, *archive, *more])


def main() -> None:
    """Make the archive: have a JVM do what those of runs do, and keep what it has loaded when it ends."""
    shutil.rmtree(ARCHIVE.parent, ignore_errors=True)
    ARCHIVE.parent.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=ARCHIVE.parent) as folder:
        made = f"{folder}/{ARCHIVE.name}"
        _use_spark(java_options(f'"-XX:ArchiveClassesAtExit={made}"'))
        os.replace(made, ARCHIVE)


def _use_spark(options: str) -> None:
    """Start a session and run Python in it; returns when its JVM has ended."""
    from fruits_assets.resources.spark_session import session

    # Of Python, too, it needs no more than PySpark, whose own daemon imports nothing else.
    of_pyspark = {"spark.python.daemon.module": "pyspark.daemon"}
    spark = session(spark_conf={"spark.driver.extraJavaOptions": options, **of_pyspark})
    context: Any = spark.sparkContext
    counted = context.accumulator(0)
    context.parallelize(range(4), 4).foreach(counted.add)
    gateway = context._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(_ENDS_WITHIN_S)


if __name__ == "__main__":
    main()
