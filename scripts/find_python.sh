# Sourced by scripts that run in an environment of one's own, or else in the repository's .venv.
# Leaves the repository's folder in $ROOT and a Python that has MODULE in $PYTHON; the folder stays the caller's.
# Usage: source scripts/find_python.sh MODULE requirements.txt [more.txt ...]

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
if python -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)" 2>/dev/null; then
    PYTHON=python # of the environment that is active
else
    (source "$ROOT/scripts/setup.sh" "${@:2}") || exit 1
    PYTHON=$ROOT/.venv/bin/python
fi
