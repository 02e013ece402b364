#!/usr/bin/env bash
# Set-up, linter, type checker and the quick test suite. Needs nothing but Python >= 3.11.
# Arguments go to pytest: bash scripts/check.sh -k metrics
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements.txt requirements-dashboard.txt requirements-dev.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
if [ $# -eq 0 ]; then # of the whole suite, how much of what reads and writes files it has run
    set -- --cov=data --cov=util --cov=options --cov-report=term:skip-covered --cov-fail-under=90
fi
"$PYTHON" -m pytest -m "not slow" "$@"
