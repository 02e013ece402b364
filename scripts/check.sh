#!/usr/bin/env bash
# Set-up, linter, type checker and the quick test suite. Needs nothing but Python >= 3.11.
# Arguments go to pytest: bash scripts/check.sh -k metrics
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements.txt requirements-dashboard.txt requirements-dev.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# As many tests at a time as there are processors, one thread each: tiny networks gain nothing from more, and threads
# that wait for busy cores take a thousand times as long. A worker that has nothing left takes tests from another one.
workers=$("$PYTHON" -c "import os; print(min(8, os.cpu_count() or 1))")
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -m "not slow" -n "$workers" --dist worksteal "$@"
