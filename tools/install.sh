#!/usr/bin/env bash
# Installs this package with what it needs into a virtual environment, and says how far it is.
set -euo pipefail
venv=$1
requirement=$2

# Inside, so that what is downloaded is counted, and does not stay behind when this is interrupted.
export TMPDIR=$PWD/$venv/tmp
rm -rf "$TMPDIR"
mkdir "$TMPDIR"
# Modules are compiled when they are first imported, which is a small part of them.
"$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
    --editable "$requirement" &
pip=$!
trap 'kill $pip 2>/dev/null || true' EXIT
seconds=0
while kill -0 $pip 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ $((seconds % 5)) -eq 0 ]; then
        echo "  $seconds s, $(du -sm "$venv" 2>/dev/null | cut -f 1) MB downloaded and unpacked"
    fi
done
wait $pip
trap - EXIT
rm -rf "$TMPDIR"
# Headers for those who compile against TensorFlow: hundreds of megabytes.
rm -rf "$venv"/lib/python3*/site-packages/tensorflow/include
