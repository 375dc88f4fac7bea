#!/usr/bin/env bash
# The whole comparison: gets nginx, builds what is measured, measures, and counts instructions.
#
#   bench/run.sh                 as it goes into the README; about 12 minutes, on an otherwise idle machine
#   bench/run.sh --quick         a minute, to see whether everything works
#
# Arguments go to `freeway-bench run`. FREEWAY=PATH measures a program that is built already. INSTRUCTIONS=no leaves
# the instructions out.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/$host/release

# nginx from the path, or else Debian's, unpacked below target/ without installing it.
nginx=$(command -v nginx || true)
if [ -z "$nginx" ]; then
    folder=$PWD/target/nginx
    nginx=$folder/usr/sbin/nginx
    if [ ! -x "$nginx" ]; then
        mkdir -p "$folder"
        (cd "$folder" && apt-get download nginx && dpkg -x nginx_*.deb .)
    fi
fi

if [ -z "${FREEWAY:-}" ]; then
    cargo build --release --package freeway
    FREEWAY=$target/freeway
fi
cargo build --release --package freeway-bench

# A thousand open streams take two descriptors each.
ulimit -n 16384 2>/dev/null || true

"$target/freeway-bench" run --freeway "$FREEWAY" --nginx "$nginx" "$@"
if [ "${INSTRUCTIONS:-}" != no ]; then
    FREEWAY=$FREEWAY bench/instructions.sh
fi
