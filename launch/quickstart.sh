#!/usr/bin/env bash
# Creates the environment, then trains FunLoRA (a generator) and FM-LoRA (a classifier) on the
# embedded digits, on the CPU.
#
#   bash launch/quickstart.sh
#
# Needs python3 >= 3.11 (or FLCL_PYTHON=/path/to/python). A second call uses the same environment
# and continues a run that was stopped.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

help_first "$@"
(($# == 0)) || fail "quickstart.sh takes no arguments, not '$*'" "for other runs: launch/train.py --help"
ensure_environment
cd "$ROOT"
run=runs/quickstart/funlora
classifier=runs/quickstart/fmlora
# Compiling these small networks takes as long as training them: the compiler should optimise less.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=1"
"$VENV_PYTHON" launch/train.py --config=configs/funlora_digits.py --workdir="$run"
echo
"$VENV_PYTHON" launch/train.py --config=configs/fmlora_digits.py --workdir="$classifier"

cat <<TEXT

Generated images, one picture per task: $ROOT/$run/samples/
Reports with everything on one page: $ROOT/$run/report.html and $ROOT/$classifier/report.html
What you can try next, in $ROOT:
  draw classes     .venv/bin/python launch/sample.py --workdir=$run --classes=3,8 --out=grid.png
  upper bound      .venv/bin/python launch/train.py --config=configs/funlora_digits.py:baseline=joint --workdir=runs/quickstart/joint
  change a key     .venv/bin/python launch/train.py --config=configs/funlora_digits.py --workdir=runs/seed1 --config.seed=1
  test the classifier, with a picture
                   .venv/bin/python launch/evaluate.py --workdir=$classifier
  list every key   .venv/bin/python launch/train.py --config=configs/funlora_digits.py --help
TEXT
