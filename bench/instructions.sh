#!/usr/bin/env bash
# Counts the instructions of a request under callgrind and fails when they have grown by more than 5 %.
#
#   bench/instructions.sh            holds them against bench/instructions.toml
#   bench/instructions.sh --write    writes them down there
#
# Needs valgrind. FREEWAY=PATH counts a program that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo 'valgrind is not there; on Debian: apt-get install valgrind' >&2
    exit 1
fi
target=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release
if [ -z "${FREEWAY:-}" ]; then
    cargo build --release --package freeway
    FREEWAY=$target/freeway
fi
cargo build --release --package freeway-bench
exec "$target/freeway-bench" instructions --freeway "$FREEWAY" "$@"
