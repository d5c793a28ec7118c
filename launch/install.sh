#!/usr/bin/env bash
# Only installs flcl into .venv: for the login node of a cluster, an image or a new machine.
#
#   bash launch/install.sh [cuda | tpu | test]
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_first "$@"
(($# <= 1)) && [[ "${1:-}" =~ ^(cuda|tpu|test)?$ ]] ||
  fail "install.sh takes one of cuda, tpu and test, or nothing for CPUs, not '$*'"
ensure_environment "${1:-}"
echo "flcl is installed: $VENV_PYTHON"
