# shellcheck shell=bash
# Sourced by the other scripts: `ensure_environment [extra]` installs flcl in .venv if needed.
#
# FLCL_PYTHON names the Python that creates it; without it, the newest Python that runs is used.
# FLCL_VENV names another folder than .venv. An environment that is up to date is used unchanged: a
# stamp file in it records the pyproject.toml, constraints.txt, folder and Python of its creation.
# One whose installation was interrupted has a file .flcl-unfinished, and is made again.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${FLCL_VENV:-$ROOT/.venv}"
VENV="${VENV%/}"
if [[ "$VENV" != /* ]]; then VENV="$PWD/$VENV"; fi # the scripts change the folder
VENV_PYTHON="$VENV/bin/python"

fail() { # message lines; the first one is the error
  printf 'error: %s\n' "$1" >&2
  shift
  if (($#)); then printf '       %s\n' "$@" >&2; fi
  exit 2
}

# If one of the words asks for help: prints the comment at the top of the script that runs, and ends.
help_first() { # words
  local word
  for word in "$@"; do
    if [[ "$word" == -h || "$word" == --help ]]; then
      sed -n '2,$ { /^#/! q; s/^# \{0,1\}//; p; }' "$0"
      exit 0
    fi
  done
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

# Whether the environment has all that is needed, with the given extra. It writes nothing: a checkout
# that is installed may be read-only.
is_ready() { # extra
  local wanted=""
  [[ ! -e "$VENV/.flcl-unfinished" ]] && is_new_enough "$VENV_PYTHON" || return 1
  if [[ -n "${FLCL_PYTHON:-}" ]]; then
    wanted="$(find_python)" || exit 2
    [[ "$(version_of "$VENV_PYTHON")" == "$(version_of "$wanted")" ]] || return 1
  fi
  [[ "$(cat "$VENV/.flcl-stamp${1:+-$1}" 2>/dev/null)" == "$(stamp_of)" ]]
}

# Prints why the environment has to be made again; nothing if it can be used or does not exist.
reason_to_renew() {
  if [[ ! -e "$VENV" ]]; then return; fi
  if [[ -e "$VENV/.flcl-unfinished" ]]; then
    echo "its last installation was interrupted"
  elif ! is_new_enough "$VENV_PYTHON"; then
    echo "its Python is $(version_of "$VENV_PYTHON" || echo missing)"
  elif [[ -n "${FLCL_PYTHON:-}" && "$(version_of "$VENV_PYTHON")" != "$(version_of "$FLCL_PYTHON")" ]]; then
    echo "its Python is $(version_of "$VENV_PYTHON")"
  elif ! "$VENV_PYTHON" -c 'import pip' >/dev/null 2>&1; then
    echo "it has no pip"
  fi
}

create_venv() { # python, and why an existing one does not fit
  local parent
  parent="$(dirname "$VENV")"
  "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$1 cannot make virtual environments: its venv module is missing" \
      "on Debian or Ubuntu: sudo apt install python3-venv (or python3.12-venv and so on)"
  # Only an environment that these scripts created may be deleted, or an empty folder.
  if [[ -e "$VENV" && ! -e "$VENV/.flcl" ]] && ! rmdir "$VENV" 2>/dev/null; then
    fail "$VENV does not fit and was made by hand: $2" \
      "remove it, or name another folder: FLCL_VENV=\$HOME/flcl-venv and the same command"
  fi
  [[ -w "$parent" ]] || fail "$VENV cannot be created: $parent is read-only or missing" \
    "name another folder: FLCL_VENV=\$HOME/flcl-venv and the same command"
  if [[ -n "$2" ]]; then echo "${VENV#"$ROOT"/} is made again: $2"; fi
  echo "creating ${VENV#"$ROOT"/} with Python $(version_of "$1")"
  # An interruption anywhere leaves an empty folder or the two marks.
  if ! { rm -rf "$VENV" && mkdir "$VENV" && : >"$VENV/.flcl" && : >"$VENV/.flcl-unfinished" &&
    "$1" -m venv "$VENV"; }; then
    fail "could not create $VENV: is the disk full?"
  fi
}

# Prints the packages that flcl needs with the given extras, one a line.
requirements_of() { # extras, joined by commas
  "$VENV_PYTHON" - "$ROOT" "$1" <<'PYTHON'
import pathlib, sys, tomllib

project = tomllib.loads((pathlib.Path(sys.argv[1]) / "pyproject.toml").read_text("utf-8"))["project"]
extras = [project["optional-dependencies"][name] for name in sys.argv[2].split(",") if name]
print("\n".join(sum(extras, project["dependencies"])))
PYTHON
}

install_flcl() { # extras, joined by commas
  local log="$VENV/install.log" code=0 packages why
  echo "installing packages into ${VENV#"$ROOT"/}: about 1 GB and a minute or two, once only"
  packages=(--editable ".${1:+[$1]}")
  if [[ ! -w "$ROOT" ]]; then
    # pip would write into the checkout: install what flcl needs, and name the checkout in a path file.
    requirements_of "$1" >"$VENV/requirements.txt"
    packages=(--requirement "$VENV/requirements.txt")
    echo "$ROOT" >"$("$VENV_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/flcl.pth"
  fi
  # With PYTHONDONTWRITEBYTECODE pip does not compile, and every start takes seconds longer.
  (cd "$ROOT" && env -u PYTHONDONTWRITEBYTECODE "$VENV_PYTHON" -m pip install \
    --disable-pip-version-check --no-input --retries 2 --constraint constraints.txt \
    "${packages[@]}") >"$log" 2>&1 || code=$?
  if ((code == 0)); then return; fi
  if ((code > 128)) || grep -q 'Operation cancelled' "$log"; then
    fail "the installation into $VENV was interrupted" "run the same command again: it makes the folder again"
  fi
  # pip itself ended: what it did not install is still missing, and nothing is half.
  rm -f "$VENV/.flcl-unfinished"
  if grep -qiE 'connection (error|refused|broken)|newconnection|name resolution|timed out|proxy' "$log"; then
    fail "pip could not reach its package index (all of its output: $log)" \
      "check network and proxy, then run the same command again; it goes on from here" \
      "without any network: PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder of wheels> and the same command"
  fi
  why="$(grep -o 'ERROR: .*' "$log" | tail -n 1)" || why="$(grep -v '^ *$' "$log" | tail -n 1)" ||
    why="it ended with code $code and said nothing"
  fail "pip could not install the packages: $why" "all of its output: $log"
}

# Waits until no other script installs into the same folder; the lock ends with the process.
lock_environment() {
  if ! command -v flock >/dev/null || ! { exec 9>"$VENV.lock"; } 2>/dev/null; then return; fi
  if flock --nonblock 9; then return; fi
  echo "waiting for another installation into ${VENV#"$ROOT"/}"
  flock 9 || true # a file system without locks
}

# Installs flcl into .venv, with the given extra; fast if that was done before.
ensure_environment() {
  local extra="${1:-}" python stamp reason
  if is_ready "$extra"; then return; fi
  lock_environment
  if is_ready "$extra"; then return; fi # the other script has installed it
  reason="$(reason_to_renew)"
  if [[ -n "$reason" || ! -e "$VENV" ]]; then
    python="$(find_python)" || exit 2
    create_venv "$python" "$reason"
  fi
  { : >"$VENV/.flcl-unfinished"; } 2>/dev/null ||
    fail "$VENV is read-only" "name another folder: FLCL_VENV=\$HOME/flcl-venv and the same command"
  install_flcl "$extra"
  stamp="$(stamp_of)"
  echo "$stamp" >"$VENV/.flcl-stamp${extra:+-$extra}"
  echo "$stamp" >"$VENV/.flcl-stamp" # an extra includes all that the plain environment needs
  rm -f "$VENV/.flcl-unfinished"
  exec 9>&- # the program that follows does not keep the lock
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then help_first --help; fi
