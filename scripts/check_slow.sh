#!/usr/bin/env bash
# The tests that take longer than a few seconds each, and on a machine with CUDA those for the GPU; without arguments
# then the quick ones once more, to see how much of our packages they run. Arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements.txt requirements-dashboard.txt requirements-dev.txt

"$PYTHON" -m pytest -m "slow or gpu" "$@"
if [ $# -eq 0 ]; then # not in check.sh: before Python 3.12 it adds about half to the time of the tests
    bash scripts/check.sh --cov --cov-report=term:skip-covered --cov-fail-under=95
fi
