#!/usr/bin/env bash
# From nothing to a result: environment, then FunLoRA (a generator) and FM-LoRA (a classifier) on the
# embedded digits, on the CPU.
#
#   bash launch/quickstart.sh
#
# Needs python3 >= 3.11 (or FLCL_PYTHON=/path/to/python). A second call uses the same environment and
# goes on where a stopped run was.
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

ensure_environment
cd "$ROOT"
run=runs/quickstart/funlora
classifier=runs/quickstart/fmlora
# The networks are so small that compiling them takes as long as training them: let the compiler try less.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=1"
"$VENV_PYTHON" launch/train.py --config=configs/funlora_digits.py --workdir="$run"
echo
"$VENV_PYTHON" launch/train.py --config=configs/fmlora_digits.py --workdir="$classifier"

cat <<TEXT

Sample grids, one per task: $ROOT/$run/samples/
Everything on one page: $ROOT/$run/report.html and $ROOT/$classifier/report.html
What to try next, from $ROOT:
  draw classes     .venv/bin/python launch/sample.py --workdir=$run --classes=3,8 --out=grid.png
  upper bound      .venv/bin/python launch/train.py --config=configs/funlora_digits.py:baseline=joint --workdir=runs/quickstart/joint
  change a key     .venv/bin/python launch/train.py --config=configs/funlora_digits.py --workdir=runs/seed1 --config.seed=1
  test the classifier, with a picture
                   .venv/bin/python launch/evaluate.py --workdir=$classifier --head=class_mean
  list every key   .venv/bin/python launch/train.py --config=configs/funlora_digits.py --help
TEXT
