#!/usr/bin/env bash
# The long run of the fuzzer at low priority: bash scripts/fuzz.sh [CASES] [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
OMP_NUM_THREADS=1 exec nice -n 15 .venv/bin/python scripts/fuzz.py --cases "${1:-100000}" --seed "${2:-0}" --workers 2
