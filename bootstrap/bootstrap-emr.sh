#!/usr/bin/env bash
# EMR bootstrap action: makes the Python that the stages run in, on every node, before Spark is installed.
#
#   bootstrap-emr.sh s3://BUCKET/bootstrap/requirements-emr.txt [s3://BUCKET/bootstrap/pip.conf]
#
# The second is a configuration of pip, for a package index of your own: its credentials are in no argument, which every
# process on the node and EMR's console show. Local files will do as well. Running it again changes nothing unless the
# requirements changed.
set -Eeuo pipefail

# 3.11: Amazon Linux's own 3.9 is too old for the pins, and 3.12 has no distutils, which Spark 3.5 imports.
python=${FRUITS_PYTHON:-python3.11}
venv=${FRUITS_VENV:-/opt/fruits/venv}
done_mark=$venv/.requirements.sha256

# Spark's executors run as another user than this script.
umask 022

log() { printf '%s bootstrap-emr: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >&2; }

fail() {
    log "FAILED: $*"
    exit 1
}

# The last resort for what no message below foresees.
trap 'log "FAILED: line $LINENO: $BASH_COMMAND"' ERR

# EMR runs this as hadoop, who may not write to /opt; elsewhere there may be no sudo.
as_owner() {
    local folder=$venv
    until [[ -e $folder ]]; do folder=$(dirname "$folder"); done
    if [[ -w $folder ]]; then "$@"; else sudo "$@"; fi
}

fetch() {
    case $1 in
        s3://*)
            aws s3 cp --only-show-errors "$1" "$2" ||
                fail "cannot read $1: upload it, and let the cluster's instance profile read that prefix"
            ;;
        *)
            cp -- "$1" "$2" || fail "cannot read the file '$1'"
            ;;
    esac
}

require_python() {
    command -v "$python" > /dev/null && return
    log "installing $python"
    sudo dnf install -y -q "$python" ||
        fail "cannot install $python with dnf: the subnet needs a way to the package repositories (S3 endpoint or NAT)"
    command -v "$python" > /dev/null || fail "dnf installed $python, yet there is no such command; set FRUITS_PYTHON"
}

# For Spark ML's own linear algebra, which falls back to Java without it; numpy's wheel brings its own.
offer_openblas() {
    sudo dnf install -y -q openblas > /dev/null 2>&1 || log "no OpenBLAS here, going on without"
}

make_venv() {
    log "making $venv with $("$python" --version 2>&1)"
    as_owner mkdir -p "$(dirname "$venv")" || fail "cannot make the folder of $venv"
    # --clear: what an interrupted run left, or other requirements, must not show through.
    as_owner "$python" -m venv --clear "$venv" || fail "cannot make a virtual environment in $venv with $python"
    # Wheels only: a node has no compiler, and building one package takes longer than all the others. `env`, because
    # sudo drops the environment.
    as_owner env ${3:+"PIP_CONFIG_FILE=$3"} "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --no-cache-dir --only-binary :all: --requirement "$1" ||
        fail "pip cannot install $2 (its message is above): check the pins, and that the subnet reaches a package index"
    "$venv/bin/python" -m pip check --disable-pip-version-check ||
        fail "the packages in $2 do not fit together (pip's message is above): correct the pins"
}

# Imports every package, so that a node without a usable one fails here and not in the middle of a step.
verify() {
    "$venv/bin/python" - "$1" <<'PYTHON' || fail "a package in $2 does not work on this node (named above)"
import importlib
import sys
from importlib.metadata import distribution, packages_distributions

# Their packages import without the compiled part, which is what may not fit the machine.
COMPILED = {"PIL": "PIL.Image", "ai_edge_litert": "ai_edge_litert.interpreter"}

def canonical(name):
    return name.lower().replace("_", "-").replace(".", "-")

modules = {}
for module, owners in packages_distributions().items():
    for owner in owners:
        modules.setdefault(canonical(owner), set()).add(module)

broken = False
for line in open(sys.argv[1], encoding="utf-8"):
    name = line.partition("#")[0].partition("==")[0].strip()
    if not name:
        continue
    try:
        version = distribution(name).version
        for module in sorted(modules.get(canonical(name), ())):
            if module.isidentifier() and not module.startswith("_"):
                importlib.import_module(COMPILED.get(module, module))
        print(f"{name} {version}", file=sys.stderr)
    except Exception as error:
        broken = True
        print(f"{name} cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
sys.exit(broken)
PYTHON
}

[[ $# -eq 1 || $# -eq 2 ]] ||
    fail "expected one or two arguments, the S3 URIs or paths of the requirements and of a pip.conf, got $#"
# Of this user alone, whatever the umask: a pip.conf may hold a password.
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
requirements=$fetched/requirements.txt
fetch "$1" "$requirements"
pip_conf=""
if [[ $# -eq 2 ]]; then
    pip_conf=$fetched/pip.conf
    fetch "$2" "$pip_conf"
fi
digest=$(sha256sum < "$requirements" | cut -d ' ' -f 1)

if [[ -x $venv/bin/python && -r $done_mark && $(< "$done_mark") == "$digest" ]]; then
    log "$venv already has what $1 asks for"
    exit 0
fi

require_python
offer_openblas
make_venv "$requirements" "$1" "$pip_conf"
verify "$requirements" "$1"
as_owner tee "$done_mark" <<< "$digest" > /dev/null
log "$venv is ready, with what $1 asks for"
