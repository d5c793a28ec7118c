# shellcheck shell=bash
# Sourced by the other scripts: `ensure_environment [extra]` installs flcl in .venv if needed.
#
# FLCL_PYTHON names the Python that creates it; without it, the newest Python that runs is used.
# FLCL_VENV names another folder than .venv. An environment that is up to date is used unchanged: a
# stamp file in it records the pyproject.toml, constraints.txt, folder and Python of its creation.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${FLCL_VENV:-$ROOT/.venv}"
VENV_PYTHON="$VENV/bin/python"

fail() { # message lines; the first one is the error
  printf 'error: %s\n' "$1" >&2
  shift
  if (($#)); then printf '       %s\n' "$@" >&2; fi
  exit 2
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

# Prints `3.13.0` as 31300, because numbers can be compared; 0 if there is no Python.
number_of() {
  local major minor patch
  IFS=. read -r major minor patch <<<"$(version_of "$1" || true)"
  patch="${patch%%[!0-9]*}" # also for a release candidate
  echo "$((${major:-0} * 10000 + ${minor:-0} * 100 + ${patch:-0}))"
}

# Prints the newest Python that is new enough and really runs: a shim may exist without a Python.
find_python() {
  local candidate number best=0 newest=""
  if [[ -n "${FLCL_PYTHON:-}" ]]; then
    command -v "$FLCL_PYTHON" >/dev/null ||
      fail "FLCL_PYTHON=$FLCL_PYTHON: there is no such program" "give the path of a Python 3.11 or newer"
    is_new_enough "$FLCL_PYTHON" ||
      fail "FLCL_PYTHON=$FLCL_PYTHON is Python $(version_of "$FLCL_PYTHON" || echo '?'); flcl needs 3.11 or newer"
    command -v "$FLCL_PYTHON"
    return
  fi
  local managed="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions" # installed by pyenv, but not on the PATH
  for candidate in python3 python3.{14,13,12,11} "$managed"/3.1[1-4].*/bin/python3; do
    is_new_enough "$candidate" || continue
    number="$(number_of "$candidate")"
    if ((number > best)); then
      best=$number newest="$(command -v "$candidate")"
    fi
  done
  if [[ -n "$newest" ]]; then
    echo "$newest"
    return
  fi
  fail "flcl needs Python 3.11 or newer; python3 here is $(version_of python3 || echo 'missing')" \
    "install a newer one, or name it: FLCL_PYTHON=/path/to/python3.12 bash launch/quickstart.sh"
}

# A hash of everything from which the environment is made.
stamp_of() {
  "$VENV_PYTHON" - "$ROOT" <<'PYTHON'
import hashlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
parts = [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
parts += [str(root).encode(), sys.version.encode()]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
}

create_venv() { # python
  "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$1 cannot make virtual environments: its venv module is missing" \
      "on Debian or Ubuntu: sudo apt install python3-venv (or python3.12-venv and so on)"
  # Only an environment that these scripts created may be deleted.
  [[ ! -e "$VENV" || -e "$VENV/.flcl" ]] ||
    fail "$VENV does not fit (its Python: $(version_of "$VENV_PYTHON" || echo none)) and was made by hand" \
      "remove it, or unset FLCL_PYTHON if that names another Python"
  echo "creating ${VENV#"$ROOT"/} with Python $(version_of "$1")"
  if ! { rm -rf "$VENV" && mkdir "$VENV" && : >"$VENV/.flcl" && "$1" -m venv "$VENV"; }; then
    fail "could not create $VENV: is the disk full or read-only?"
  fi
}

install_flcl() { # what to install: . or .[extra]
  local log="$VENV/install.log"
  echo "installing packages into ${VENV#"$ROOT"/}: about 1 GB and a minute or two, once only"
  # With PYTHONDONTWRITEBYTECODE pip does not compile, and every start takes seconds longer.
  (cd "$ROOT" && env -u PYTHONDONTWRITEBYTECODE "$VENV_PYTHON" -m pip install \
    --disable-pip-version-check --no-input --retries 2 --constraint constraints.txt \
    --editable "$1") >"$log" 2>&1 && return
  if grep -qiE 'connection (error|refused|broken)|newconnection|name resolution|timed out|proxy' "$log"; then
    fail "pip could not reach its package index (all of its output: $log)" \
      "check network and proxy, then run the same command again; it goes on from here" \
      "without any network: PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder of wheels> and the same command"
  fi
  fail "pip could not install the packages: $(grep -o 'ERROR: .*' "$log" | tail -n 1)" \
    "all of its output: $log"
}

# Installs flcl into .venv, with the given extra; fast if that was done before.
ensure_environment() {
  local extra="${1:-}" python stamp file
  if [[ -n "${FLCL_PYTHON:-}" ]] || ! is_new_enough "$VENV_PYTHON"; then
    python="$(find_python)" || exit 2
    if [[ "$(version_of "$VENV_PYTHON")" != "$(version_of "$python")" ]]; then
      create_venv "$python"
    fi
  fi
  file="$VENV/.flcl-stamp${extra:+-$extra}"
  stamp="$(stamp_of)"
  if [[ "$(cat "$file" 2>/dev/null)" != "$stamp" ]]; then
    install_flcl ".${extra:+[$extra]}"
    echo "$stamp" >"$file"
    echo "$stamp" >"$VENV/.flcl-stamp" # an extra includes all that the plain environment needs
  fi
}
