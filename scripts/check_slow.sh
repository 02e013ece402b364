#!/usr/bin/env bash
# The tests that take longer than a few seconds each, and on a machine with CUDA those for the GPU.
set -euo pipefail
source "$(dirname "$0")/setup.sh" requirements.txt requirements-dashboard.txt requirements-dev.txt

"$PYTHON" -m pytest -m "slow or gpu" "$@"
