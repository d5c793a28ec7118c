#!/usr/bin/env bash
# Runs all tests in the environment of the quickstart, with the extras test and aot added.
#
#   bash launch/test.sh [pytest arguments]
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_first "$@"
ensure_environment test,aot
cd "$ROOT"
echo "tests run with Python $(version_of "$VENV_PYTHON")"
# One process runs all tests of a file, because they share trained runs. Long files start first.
exec "$VENV_PYTHON" -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder "$@"
