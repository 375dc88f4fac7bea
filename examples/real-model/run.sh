#!/usr/bin/env bash
# Two real model servers, Freeway before them, and the OpenAI SDK before Freeway; one server is stopped on the way.
#
# FREEWAY is the program to run (default: `cargo run`, which builds it).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/freeway-real-model
work=$(mktemp -d)
started=()

say() { echo "run.sh: $*" >&2; }
die() { say "$*"; exit 1; }

stop() {
  trap - EXIT INT TERM
  if ((${#started[@]})); then
    kill "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Waits until the command succeeds, as long as the process is there.
wait_until() { # SECONDS PID COMMAND...
  local tries=$(($1 * 5)) pid=$2
  shift 2
  for ((; tries > 0; tries--)); do
    if "$@"; then return 0; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.2
  done
  return 1
}

healthy() { curl --silent --fail --max-time 2 --output /dev/null http://127.0.0.1:8080/healthz; }

if [[ -n ${FREEWAY:-} ]]; then
  freeway=("$FREEWAY")
else
  cd "$here/../.."
  cargo build --quiet
  freeway=(cargo run --quiet --)
fi

"$here/serve.sh" --prepare # the long part, once
if ! [[ -x $cache/openai/bin/python ]]; then
  python3 -m venv "$cache/openai"
fi
"$cache/openai/bin/pip" install --quiet openai==3.54.0

"$here/serve.sh" --seconds 300 --pids "$work/pids" &
started+=("$!")
wait_until 70 "$!" test -f "$work/pids" || die "the model servers did not start"

if healthy; then die "something else answers on port 8080"; fi
"${freeway[@]}" serve --config "$here/freeway.toml" >"$work/freeway.log" 2>&1 &
started+=("$!")
if ! wait_until 30 "$!" healthy; then
  cat "$work/freeway.log" >&2
  die "Freeway did not start"
fi

read -r first_pid <"$work/pids"
if ! "$cache/openai/bin/python" "$here/chat.py" --stop-pid "$first_pid"; then
  tail -n 50 "$work/freeway.log" >&2
  die "chat.py failed; above is the end of Freeway's log"
fi
