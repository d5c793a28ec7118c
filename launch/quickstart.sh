#!/usr/bin/env bash
# Creates the environment, then trains FunLoRA (a generator of clothes), teaches it two classes that
# were not planned, and trains FM-LoRA (a classifier of digits), on the CPU.
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
files=runs/quickstart/classes
classifier=runs/quickstart/fmlora
# Compiling these small networks takes as long as training them: the compiler should optimise less.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=1"

# Writes the eight planned classes to files: a file is all that belongs to one class.
export_planned() { # folder
  echo
  "$VENV_PYTHON" launch/classes.py export --workdir="$run" --classes=0,1,2,3,4,5,6,7 --out="$1" --overwrite
}

# Compares the files of before and after, byte for byte, and says what the new classes cost.
tell_what_changed() { # seconds
  local file bytes=0 same=0
  for file in "$files"/before/*.safetensors; do
    if [[ ! -e "$file" ]]; then break; fi
    cmp "$file" "$files/after/${file##*/}" || fail "$file: another class has changed: please report this"
    bytes=$(($(wc -c <"$file"))) same=$((same + 1))
  done
  echo
  echo "Bag and Ankle boot were not planned. Learning both took $1 seconds, with start and tests."
  echo "A class is a file of about $bytes bytes. The $same other classes did not change by a bit: their files"
  echo "in $files/before and $files/after are equal."
}

"$VENV_PYTHON" launch/train.py --config=configs/funlora_fashion16.py --workdir="$run"
if [[ ! -e "$run/samples/before_after.png" ]]; then
  export_planned "$files/before"
  echo
  start=$SECONDS
  "$VENV_PYTHON" launch/learn.py --workdir="$run" --data=fashion16:bag,boot
  seconds=$((SECONDS - start))
  export_planned "$files/after"
  tell_what_changed "$seconds"
fi
echo
"$VENV_PYTHON" launch/train.py --config=configs/fmlora_digits.py --workdir="$classifier"

cat <<TEXT

What the generator draws before and after the two new classes: $ROOT/$run/samples/before_after.png
Reports with everything on one page: $ROOT/$run/report.html and $ROOT/$classifier/report.html
What you can try next, in $ROOT:
  draw classes     .venv/bin/python launch/sample.py --workdir=$run --classes=Bag,Sneaker --out=grid.png
  upper bound      .venv/bin/python launch/train.py --config=configs/funlora_fashion16.py:baseline=joint --workdir=runs/quickstart/joint
  change a key     .venv/bin/python launch/train.py --config=configs/funlora_digits.py --workdir=runs/seed1 --config.seed=1
  test the classifier, with a picture
                   .venv/bin/python launch/evaluate.py --workdir=$classifier
  list every key   .venv/bin/python launch/train.py --config=configs/funlora_fashion16.py --help
TEXT
