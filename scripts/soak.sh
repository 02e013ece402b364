#!/usr/bin/env bash
# Kills a tiny training 200 times at random moments and checks every recovery. Arguments: --kills N, --seed N, --out DIR.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements.txt

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
OMP_NUM_THREADS=1 "$PYTHON" -m scripts.soak --out "$out/soak" "$@"
