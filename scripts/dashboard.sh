#!/usr/bin/env bash
# The server of the live dashboard (train.py --display_id 1), for browsers on this machine only: it listens on 127.0.0.1.
# Its browser files are fetched once, from the npm registry, and checked by SHA-256; afterwards it needs no internet.
# Arguments go to visdom's server: bash scripts/dashboard.sh -port 8098
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/find_python.sh" visdom requirements-dashboard.txt

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" -m scripts.dashboard_server "$@"
