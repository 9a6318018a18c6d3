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
echo "Installing into $venv (a minute or two, TensorFlow and Spark are large) ..."
"$python" -m venv "$venv"
tools/install.sh "$venv" '.[s3]'
