#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any size, from a laptop that has gcloud.
#
#   launch/tpu_pod.sh create NAME --zone=Z --type=v5litepod-16 [--spot] [--queued] [options]
#   launch/tpu_pod.sh setup  NAME          copies this checkout to every host and installs it there
#   launch/tpu_pod.sh run    NAME --config=FILE --workdir=DIR [--config.key=value ...]
#   launch/tpu_pod.sh watch  NAME          waits for the end; resumes by itself after a preemption
#   launch/tpu_pod.sh resume NAME          deletes, creates, sets up and runs the same command, once
#   launch/tpu_pod.sh logs   NAME [--worker=0]
#   launch/tpu_pod.sh status NAME
#   launch/tpu_pod.sh stop   NAME          makes the program save and exit with code 75
#   launch/tpu_pod.sh delete NAME
#
# Options (all but those in the last two lines are remembered for each NAME):
#   --zone=ZONE --project=PROJECT          default: those of gcloud
#   --type=TYPE                            accelerator type, such as v4-32, v5litepod-16, v6e-64
#   --version=RUNTIME                      default: chosen for the type
#   --spot                                 cheaper; can be taken away at any time
#   --queued                               requests a queued resource and waits until it is granted
#   --nfs=HOST:/SHARE                      mounted at /mnt/flcl on every host; put the workdir there
#   --clone=URL [--ref=REF]                clones a repository instead of copying this checkout
#   --python=PROGRAM                       Python of the hosts; default: one that fits, or uv's 3.12
#   --create-flag=FLAG --ssh-flag=FLAG     passed to gcloud's create, ssh and scp; may be repeated
#   --dry-run                              prints every command and runs none
#   --poll=SECONDS --restarts=N            for watch: seconds between two checks (30), resumes (100)
#
# Exit codes: watch returns the code of the program (0 done, 1 had to stop, 2 bad input). Bad
# options give 2. If gcloud fails or the slice is not available, the code is 1.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
STORE="${XDG_STATE_HOME:-$HOME/.local/state}/flcl/tpu"
AGAIN=75  # exit code of a program that saved on SIGTERM
PATIENCE=10 # checks until other hosts have to end after the first one failed
# Asks what a host does; a host that was never set up counts as idle.
LOOK='bash flcl/launch/_worker.sh state || echo flcl-worker new idle'
REMEMBERED="zone project type version spot queued nfs clone ref python"

zone="" project="" type="" version="" spot="" queued="" nfs="" clone="" ref="" python=""
worker=0 dry="" poll=30 restarts=100
create_flags=() ssh_flags=() words=()

fail() { # message
  printf 'error: %s\n' "$1" >&2
  exit "${2:-2}"
}

exec 3>&1 # a dry run prints here, also commands whose output is read

say() {
  if [[ -n "$dry" ]]; then echo "# $*"; else printf '%s %s\n' "$(date +%H:%M:%S)" "$*"; fi
}

# Prints words as one line that any shell reads as the same words.
quoted() {
  local word line="" mark="'" escaped="'\\''"
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      line+="$word "
    else
      line+="'${word//$mark/$escaped}' "
    fi
  done
  printf '%s' "${line% }"
}

call() { # command
  if [[ -n "$dry" ]]; then printf '%s\n' "$(quoted "$@")" >&3; else "$@"; fi
}

place() { # the flags that every gcloud command has
  printf '%s\n' "--zone=$zone"
  if [[ -n "$project" ]]; then printf '%s\n' "--project=$project"; fi
}

tpus() { # gcloud's group and command, then its words
  local where=() line
  while IFS= read -r line; do where+=("$line"); done < <(place)
  call gcloud compute tpus "$@" "${where[@]}"
}

ssh_to() { # all or a number, then the remote command
  tpus tpu-vm ssh "$name" "--worker=$1" "--command=$2" ${ssh_flags[@]+"${ssh_flags[@]}"}
}

# --- what is remembered for NAME ------------------------------------------------------------------

recall() {
  local line
  [[ -e "$store/options" ]] || return 0
  while IFS= read -r line; do read_option "$line"; done <"$store/options"
}

remember() {
  local key flag
  if [[ -n "$dry" ]]; then return; fi
  mkdir -p "$store"
  {
    for key in $REMEMBERED; do
      if [[ "$key" =~ ^(spot|queued)$ && -n "${!key}" ]]; then
        echo "--$key"
      elif [[ -n "${!key}" ]]; then
        echo "--$key=${!key}"
      fi
    done
    for flag in ${create_flags[@]+"${create_flags[@]}"}; do echo "--create-flag=$flag"; done
    for flag in ${ssh_flags[@]+"${ssh_flags[@]}"}; do echo "--ssh-flag=$flag"; done
  } >"$store/options"
}

remember_words() {
  local word
  workdir=""
  for word in "${words[@]}"; do
    if [[ "$word" == --workdir=* ]]; then workdir="${word#*=}"; fi
  done
  [[ -n "$workdir" ]] || fail "run needs --workdir=DIR, on a share that all hosts see"
  [[ ! "$workdir" =~ ^[A-Za-z][A-Za-z0-9+.-]+:/ ]] ||
    fail "--workdir=$workdir is an address: a folder is needed, on a share that all hosts see"
  command_line="$(quoted "${words[@]}")"
  if [[ -n "$dry" ]]; then return; fi
  mkdir -p "$store"
  printf '%s' "$workdir" >"$store/workdir"
  printf '%s' "$command_line" >"$store/command"
}

recall_words() {
  if ((${#words[@]})); then
    remember_words
    return
  fi
  [[ -e "$store/command" ]] || fail "nothing was run on $name yet: tpu_pod.sh run $name --config=FILE --workdir=DIR"
  workdir="$(cat "$store/workdir")"
  command_line="$(cat "$store/command")"
}

# --- the steps ------------------------------------------------------------------------------------

runtime_of() { # accelerator type
  case "$1" in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

create() {
  local flags=(${spot:+--spot} ${create_flags[@]+"${create_flags[@]}"})
  [[ -n "$type" ]] || fail "create needs --type, such as --type=v5litepod-16"
  version="${version:-$(runtime_of "$type")}"
  remember
  say "creating $name: $type, $version"
  if [[ -z "$queued" ]]; then
    tpus tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" ${flags[@]+"${flags[@]}"}
    return
  fi
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$version" ${flags[@]+"${flags[@]}"} || return
  wait_for_grant
}

wait_for_grant() {
  local found before=""
  while :; do
    found="$(node_state)"
    case "$found" in
      ACTIVE) return ;;
      FAILED | SUSPENDED | NOT_FOUND)
        echo "error: the queued resource $name ended as $found" >&2
        return 1
        ;;
    esac
    if [[ "$found" != "$before" ]]; then say "queued resource $name: $found"; fi
    before="$found"
    sleep "$poll"
  done
}

setup() {
  local prefix="" line="bash flcl/launch/_worker.sh setup" archive
  if [[ -n "$python" ]]; then prefix="FLCL_PYTHON=$(quoted "$python") "; fi
  line="$prefix$line${nfs:+ $(quoted "$nfs")}"
  say "setting up all hosts of $name"
  if [[ -n "$clone" ]]; then
    ssh_to all "{ [ -d flcl ] || git clone --quiet $(quoted "$clone") flcl; } && cd flcl && git fetch --quiet origin $(quoted "${ref:-HEAD}") && git checkout --quiet FETCH_HEAD && cd .. && $line"
    return
  fi
  archive="${TMPDIR:-/tmp}/flcl-$name.tar.gz"
  pack "$archive" || return
  tpus tpu-vm scp "$archive" "$name:flcl.tar.gz" --worker=all ${ssh_flags[@]+"${ssh_flags[@]}"} || return
  ssh_to all "mkdir -p flcl && rm -rf flcl/flcl flcl/launch flcl/configs && tar -xzf flcl.tar.gz -C flcl && $line"
}

# Packs this checkout with its changes, without hidden files and runs/.
pack() { # archive
  local entry entries=()
  for entry in "$ROOT"/*; do
    if [[ "${entry##*/}" != runs ]]; then entries+=("${entry##*/}"); fi
  done
  COPYFILE_DISABLE=1 call tar -czf "$1" --exclude=__pycache__ -C "$ROOT" "${entries[@]}"
}

run() {
  local token
  token="$(date +%s)-$$"
  if [[ -n "$dry" ]]; then token=TOKEN; fi
  say "running on all hosts of $name: launch/train.py $command_line"
  call rm -f "$store/stopped"
  ssh_to 0 "bash flcl/launch/_worker.sh claim $(quoted "$workdir") $token" || return
  ssh_to all "bash flcl/launch/_worker.sh start $(quoted "$workdir") $token $command_line"
}

remove() {
  say "deleting $name"
  if [[ -n "$queued" ]]; then
    tpus queued-resources delete "$name" --force --quiet
  else
    tpus tpu-vm delete "$name" --quiet
  fi
}

renew() {
  if [[ "$(node_state)" != NOT_FOUND ]]; then remove || return; fi
  create
}

resume() { renew && setup && run; }

# For a slice that exists. Three refusals mean bad input, and a new slice would not help.
start() {
  local tries=0
  until setup && run; do
    tries=$((tries + 1))
    case "$(node_state)" in
      READY | ACTIVE | UNKNOWN) ;;
      *) return 1 ;;
    esac
    ((tries < 3)) || fail "the hosts of $name did not start the program, see above; the slice is left as it is"
    sleep "$poll"
  done
}

# --- checking -------------------------------------------------------------------------------------

# Prints the state of the node or queued resource, NOT_FOUND, or UNKNOWN (gcloud's error on stderr).
node_state() {
  local answer words=(tpu-vm describe "$name" "--format=value(state)")
  if [[ -n "$queued" ]]; then words=(queued-resources describe "$name" "--format=value(state.state)"); fi
  if answer="$(tpus "${words[@]}" 2>&1)"; then
    if [[ -n "$dry" ]]; then answer=ACTIVE; fi
    printf '%s\n' "${answer##*$'\n'}"
  elif [[ "$answer" =~ NOT_FOUND|"not found" ]]; then
    echo NOT_FOUND
  else
    printf '%s\n' "${answer##*$'\n'}" >&2
    echo UNKNOWN
  fi
}

# Sums up the lines of all hosts: running, idle, again REASON, done CODE, ended CODE (others still
# run) or UNKNOWN.
verdict() { # lines
  local number found code running=0 ended=0 idle=0 worst=0 again=""
  while read -r _ number found code; do
    case "$found" in
      running) running=$((running + 1)) ;;
      exited)
        ended=$((ended + 1))
        if ((code == AGAIN)); then
          again="worker $number exited with $code"
        elif ((code != 0 && (worst == 0 || code < worst))); then
          worst="$code" # a small code is a cause; one above 128 usually only follows from it
        fi
        ;;
      lost | idle)
        ended=$((ended + 1)) again="${again:-the program of worker $number is gone}"
        if [[ "$found" == idle ]]; then idle=$((idle + 1)); fi
        ;;
    esac
  done < <(grep '^flcl-worker ' <<<"$1")
  if ((running + ended == 0)); then
    echo UNKNOWN
  elif ((idle == running + ended)); then
    echo idle
  elif ((running > 0 && worst == 0)) && [[ -z "$again" ]]; then
    echo running
  elif ((running > 0)); then
    echo "ended ${again:-$worst}"
  elif [[ -n "$again" ]]; then
    echo "again $again"
  else
    echo "done $worst"
  fi
}

# Prints what to do next: asks the node first, then its hosts.
look() {
  local node lines
  node="$(node_state)"
  case "$node" in
    READY | ACTIVE)
      # Uses the hosts that answer, even if another does not; one that was never set up says idle.
      lines="$(ssh_to all "$LOOK" 2>/dev/null)" || true
      verdict "$lines"
      ;;
    PREEMPTED | SUSPENDED | TERMINATED | STOPPED | FAILED | NOT_FOUND) echo "again $name is $node" ;;
    UNKNOWN) echo UNKNOWN ;;
    *) echo "waiting $node" ;;
  esac
}

watch() {
  local found before="" resumed=0 looks=0
  while :; do
    found="$(look)"
    if [[ "$found" != "$before" ]]; then
      say "$name: $found"
      looks=0
    fi
    before="$found"
    looks=$((looks + 1))
    # Hosts would wait for a lost host for ever; a long time without an answer also counts as lost.
    if [[ "$found" == "ended worker"* || "$found" == "ended the"* ]] && ((looks >= PATIENCE)); then
      found="again ${found#ended }"
    elif [[ "$found" == "ended "* ]] && ((looks >= PATIENCE)); then
      found="done ${found#ended }"
    elif [[ "$found" == UNKNOWN ]] && ((looks >= 2 * PATIENCE)); then
      fail "$name gave no answer $looks times: tpu_pod.sh status $name" 1
    fi
    case "$found" in
      "done "*) return "${found#done }" ;;
      idle | "again "*)
        if [[ -e "$store/stopped" ]]; then return "$AGAIN"; fi
        ((resumed < restarts)) || fail "$name was resumed $resumed times, --restarts=$restarts" 1
        resumed=$((resumed + 1))
        say "resuming, number $resumed"
        before=""
        if [[ "$found" == idle ]] || renew; then
          start || say "could not start; checking again"
        else
          say "could not create; checking again"
        fi
        ;;
    esac
    sleep "$poll"
  done
}

watch_dry() {
  look >/dev/null
  say "and when the slice is gone or a program ended with $AGAIN:"
  resume
}

# --- the command line -----------------------------------------------------------------------------

read_option() { # word; false if it is no option
  case "$1" in
    --zone=?* | --project=?* | --type=?* | --version=?* | --nfs=?* | --clone=?* | --ref=?* | --python=?*)
      local key="${1%%=*}"
      printf -v "${key#--}" %s "${1#*=}"
      ;;
    --worker=?* | --poll=?* | --restarts=?*)
      local key="${1%%=*}"
      [[ "${1#*=}" =~ ^[0-9]+([.][0-9]+)?$ ]] || fail "$1: a number is needed"
      printf -v "${key#--}" %s "${1#*=}"
      ;;
    --spot | --queued) printf -v "${1#--}" %s yes ;;
    --create-flag=?*) create_flags+=("${1#*=}") ;;
    --ssh-flag=?*) ssh_flags+=("${1#*=}") ;;
    --dry-run) dry=yes ;;
    *) return 1 ;;
  esac
}

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit "${1:-0}"
}

# An option of this script among the arguments of the program would be passed to the program.
check_words() {
  local word
  for word in "${words[@]}"; do
    if (read_option "$word" 2>/dev/null); then
      fail "$word is an option of this script: put it before the arguments of launch/train.py"
    fi
  done
}

parse() { # the words after NAME
  while (($#)); do
    if [[ "$1" == -- ]]; then
      shift
      words=("$@")
      return
    elif ! read_option "$1"; then
      [[ "$command" =~ ^(run|resume|watch)$ && "$1" =~ ^--?(config|noconfig|workdir) ]] ||
        fail "$command knows no option '$1': launch/tpu_pod.sh --help lists them"
      words=("$@")
      check_words
      return
    fi
    shift
  done
}

(($#)) || usage 2 >&2
if [[ "$1" == help || " $* " =~ \ (-h|--help)\  ]]; then usage; fi
command="$1"
name="${2:-}"
[[ "$command" =~ ^(create|setup|run|watch|resume|logs|status|stop|delete)$ ]] ||
  fail "tpu_pod.sh knows no command '$command': create, setup, run, watch, resume, logs, status, stop or delete"
[[ "$name" =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
  fail "$command needs a NAME of small letters, digits and hyphens, not '$name'"
store="$STORE/$name"
shift 2
if [[ "$command" != create ]]; then recall; fi
parse "$@"
command -v gcloud >/dev/null || [[ -n "$dry" ]] || fail "there is no gcloud here: install the Google Cloud CLI"
if [[ -z "$zone" ]]; then
  if [[ -z "$dry" ]]; then zone="$(gcloud config get-value compute/zone 2>/dev/null)" || zone=""; fi
  [[ -n "$zone" ]] || fail "$command needs --zone, such as --zone=us-west4-a"
fi
if [[ "$command" != delete ]]; then remember; fi

case "$command" in
  create | setup) "$command" ;;
  run)
    ((${#words[@]})) || fail "run needs the arguments of launch/train.py: --config=FILE --workdir=DIR"
    remember_words
    run
    ;;
  resume)
    recall_words
    if [[ "$(look)" == running ]]; then fail "$name still runs: tpu_pod.sh stop $name saves and ends it"; fi
    resume
    ;;
  watch)
    other=""
    if ((${#words[@]})) && [[ -z "$dry" && -e "$store/command" && "$(cat "$store/command")" != "$(quoted "${words[@]}")" ]]; then
      # The state of the hosts is that of the last program; these arguments are a new one.
      other="$(look)"
      if [[ "$other" =~ ^(running|ended) ]]; then fail "$name still runs: launch/train.py $(cat "$store/command")"; fi
    fi
    recall_words
    if [[ -n "$dry" ]]; then
      watch_dry
      exit
    fi
    if [[ "$other" == "done "* ]]; then start || say "could not start; checking again"; fi
    watch
    ;;
  logs) ssh_to "$worker" "bash flcl/launch/_worker.sh log 50" ;;
  stop)
    call touch "$store/stopped" # watch must not resume a program that was stopped on purpose
    ssh_to all "bash flcl/launch/_worker.sh stop"
    ;;
  status)
    say "$name: $(node_state)"
    ssh_to all "$LOOK" || true
    if [[ -e "$store/command" ]]; then echo "launch/train.py $(cat "$store/command")"; fi
    ;;
  delete)
    remove
    call rm -rf "$store"
    ;;
esac
