#!/usr/bin/env bash
# make interop: mxnet 1.9.1 reads what we write, and we read what it writes.
# Builds .venv-interop (mxnet needs Python 3.11 and an old numpy) on the first call.
#   PYTHON311=/path/to/python3.11   where it is not called python3.11
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=.venv-interop
stamp=$venv/.installed
if [ ! "$stamp" -nt requirements-interop.lock ]; then
    python=${PYTHON311:-python3.11}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        echo "make interop needs Python 3.11 for mxnet; '$python' is not one (set PYTHON311)" >&2
        exit 1
    fi
    "$python" -m venv --clear $venv
    $venv/bin/python -m pip install --disable-pip-version-check -q \
        --require-hashes --no-deps --only-binary :all: -r requirements-interop.lock
    touch "$stamp"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0
.venv/bin/python tests/interop/ours.py write "$folder"
$venv/bin/python tests/interop/theirs.py "$folder" || status=1
.venv/bin/python tests/interop/ours.py read "$folder" || status=1
if [ $status -eq 0 ]; then echo "interop: all equal"; else echo "interop: differences" >&2; fi
exit $status
