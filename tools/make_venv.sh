#!/usr/bin/env bash
# Makes a virtual environment with everything that the graph needs, or says why it cannot.
set -euo pipefail
python=$1
venv=$2

if ! command -v "$python" >/dev/null; then
    echo "No '$python' here. Install Python 3.11 or newer, or name one: make run PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$("$python" --version) is too old: Python 3.11 or newer is needed. Name one: make run PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi
echo "Installing into $venv (about a minute, Spark is large) ..."
rm -rf "$venv"/tmp.*
"$python" -m venv "$venv"
make_classes_ready() {
    tools/need_java.sh && "$venv/bin/python" -m fruits_assets.resources.jvm
}
# Spark comes as sources and is a third of all. It is made ready beside the rest, its classes too, by a group of
# processes that ends with this one.
set -m
{
    tools/install.sh "$venv" --no-deps pyspark py4j
    make_classes_ready
} >"$venv/spark.log" 2>&1 &
spark=$!
set +m
trap 'kill -- -$spark 2>/dev/null || true' EXIT
mapfile -t rest < <("$venv/bin/python" - <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
needed = [*project["dependencies"], *project["optional-dependencies"]["s3"]]
print(*(name for name in needed if not name.startswith("pyspark")), sep="\n")
PYTHON
)
tools/install.sh "$venv" "${rest[@]}"
# What the first run would have to compile; the daemon would begin to serve.
"$venv/bin/python" - <<'PYTHON' || true
import importlib, pkgutil
import fruits_assets
for module in pkgutil.walk_packages(fruits_assets.__path__, "fruits_assets."):
    if not module.name.endswith(".worker_daemon"):
        importlib.import_module(module.name)
PYTHON
is_ready=true
wait $spark || is_ready=false
# Whatever has gone wrong above is put right here, or told.
tools/install.sh "$venv" --editable '.[s3]'
# PySpark imports what it finds; of what was just being installed, that can be a part of a file.
$is_ready || make_classes_ready >>"$venv/spark.log" 2>&1 ||
    echo "Spark will start more slowly than it could: see $venv/spark.log"
