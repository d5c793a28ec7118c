#!/usr/bin/env bash
# launch/tpu_pod.sh runs this script on every host of a TPU slice, in ~/flcl.
#
#   _worker.sh setup [HOST:/SHARE]     mounts the share at /mnt/flcl, installs flcl with extra tpu
#   _worker.sh claim WORKDIR TOKEN     marks the workdir, on one host
#   _worker.sh start WORKDIR TOKEN ... checks the mark, starts launch/train.py detached from ssh
#   _worker.sh state                   prints running, exited CODE, lost (ended without code), idle
#   _worker.sh stop                    sends SIGTERM: the program saves and exits with code 75
#   _worker.sh log LINES               prints the end of the log and follows it
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"

KEPT="$HOME/.flcl-run" # pid, exit code and log of the run on this host
MOUNT=/mnt/flcl

# Prints the number of this host: the names in a slice are t1v-n-...-w-0, -w-1 and so on.
label() {
  local name
  name="$(hostname)"
  echo "${name##*-w-}"
}

mount_share() { # HOST:/SHARE
  if mountpoint -q "$MOUNT"; then return; fi
  command -v mount.nfs >/dev/null || sudo apt-get -qq install -y nfs-common >/dev/null ||
    fail "nfs-common could not be installed; it is needed to mount $1"
  sudo mkdir -p "$MOUNT"
  # With locks on an NFSv3 server, the lock of a lost host would never be released.
  sudo mount -t nfs -o hard,local_lock=flock "$1" "$MOUNT" ||
    fail "$1 could not be mounted at $MOUNT: is the slice in the same network as the server?"
}

# Sets FLCL_PYTHON to a Python that can create the environment; Ubuntu 22.04 only has 3.10.
choose_python() {
  local candidate uv
  if [[ -n "${FLCL_PYTHON:-}" ]] || is_new_enough "$VENV_PYTHON"; then return; fi
  for candidate in python3 python3.13 python3.12 python3.11; do
    if is_new_enough "$candidate" && "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      export FLCL_PYTHON="$candidate"
      return
    fi
  done
  uv="$(command -v uv || echo "$HOME/.local/bin/uv")"
  [[ -x "$uv" ]] || python3 -m pip install --user --quiet uv ||
    fail "python3 here is $(version_of python3 || echo missing) and pip could not install uv, which installs a newer one" \
      "install Python 3.11 or newer on every host, or name one: --python=/path/to/python3.12"
  "$uv" python install --quiet 3.12 || fail "uv could not install Python 3.12"
  FLCL_PYTHON="$("$uv" python find 3.12)"
  export FLCL_PYTHON
}

is_running() {
  local pid
  pid="$(cat "$KEPT/pid" 2>/dev/null)" && ps -o args= -p "$pid" | grep -q _worker.sh
}

# As the program expands it, but a shell does not after `=`.
in_home() { # workdir
  if [[ "$1/" == \~/* ]]; then printf '%s' "$HOME${1:1}"; else printf '%s' "$1"; fi
}

claim() { # workdir token
  set -- "$(in_home "$1")" "$2"
  cd "$ROOT"
  if ! { mkdir -p -- "$1" && rm -f -- "$1"/.claim-* && : >"$1/.claim-$2"; } 2>/dev/null; then
    fail "workdir $1 is not writable on worker $(label)"
  fi
}

start() { # workdir token words
  local workdir token="$2" log
  workdir="$(in_home "$1")"
  shift 2
  cd "$ROOT"
  [[ -e "$workdir/.claim-$token" ]] ||
    fail "worker $(label) does not see workdir $workdir of worker 0" \
      "all hosts need one workdir: on a mounted share, such as $MOUNT/NAME with --nfs=HOST:/SHARE"
  if is_running; then fail "worker $(label) runs a program already: stop it first"; fi
  log="$(cd "$workdir" && pwd)/logs/worker-$(label).log"
  mkdir -p "$KEPT" "${log%/*}"
  rm -f "$KEPT/code"
  echo "$log" >"$KEPT/log"
  # setsid starts a new session: neither the end of ssh nor its signals stop the program.
  setsid nohup bash "$ROOT/launch/_worker.sh" supervise "$@" >>"$log" 2>&1 </dev/null &
  echo $! >"$KEPT/pid"
  echo "worker $(label) started: $log"
}

supervise() { # words
  local code=0
  # Caught, not ignored: a child inherits ignored signals, and the program has to receive SIGTERM.
  trap : TERM HUP INT
  cd "$ROOT"
  "$VENV_PYTHON" launch/train.py "$@" || code=$?
  echo "$code" >"$KEPT/code.new"
  mv "$KEPT/code.new" "$KEPT/code"
}

state() {
  local found=idle
  if [[ -e "$KEPT/code" ]]; then
    found="exited $(cat "$KEPT/code")"
  elif is_running; then
    found=running
  elif [[ -e "$KEPT/pid" ]]; then
    found=lost
  fi
  echo "flcl-worker $(label) $found"
}

stop() {
  if is_running; then kill -TERM -- "-$(cat "$KEPT/pid")"; fi
  state
}

log() { # lines
  [[ -e "$KEPT/log" ]] || fail "worker $(label) has no log yet: nothing was run"
  exec tail -n "$1" -F "$(cat "$KEPT/log")"
}

setup() { # [host:/share]
  if [[ -n "${1:-}" ]]; then mount_share "$1"; fi
  choose_python
  ensure_environment tpu
  echo "worker $(label) is ready"
}

if [[ "${1:-}" != start && "${1:-}" != supervise ]]; then help_first "$@"; fi
case "${1:-}" in
  setup | claim | start | supervise | state | stop | log) "$@" ;;
  *) fail "_worker.sh knows no command '${1:-}'; it is called by launch/tpu_pod.sh" ;;
esac
