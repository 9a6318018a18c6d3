#!/usr/bin/env bash
# Installs this package with what it needs into a virtual environment, and says how far it is.
set -euo pipefail
venv=$1
shift # what is left: the requirements, as pip has them

# Inside, so that what is downloaded is counted.
TMPDIR=$(mktemp -d "$PWD/$venv/tmp.XXXXXX")
export TMPDIR
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$TMPDIR"' EXIT
# Spark comes as sources, of which pip makes a wheel that nobody needs compressed.
printf '[bdist_wheel]\ncompression = stored\n' >"$TMPDIR/distutils.cfg"
export DIST_EXTRA_CONFIG=$TMPDIR/distutils.cfg
# Modules are compiled when they are first imported, which is a small part of them.
"$venv/bin/pip" install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
    "$@" &
pip=$!
seconds=0
while kill -0 $pip 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ $((seconds % 5)) -eq 0 ]; then
        echo "  $seconds s, $(du -sm "$venv" 2>/dev/null | cut -f 1) MB downloaded and unpacked"
    fi
done
wait $pip
# Headers for those who compile against TensorFlow: hundreds of megabytes.
rm -rf "$venv"/lib/python3*/site-packages/tensorflow/include
