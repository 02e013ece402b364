# Sourced by the other scripts: makes .venv if it is missing, installs requirements files given as arguments if they
# changed since the last time, and leaves the environment's Python in $PYTHON.
# Usage: source scripts/setup.sh requirements.txt [more.txt ...]

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
unset PYTHONDONTWRITEBYTECODE # or every process would compile torch's sources anew, ten seconds each

find_python() {
    local candidate
    for candidate in "${PTA_PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed and was not found; name one with PTA_PYTHON=/path/to/python" >&2
    exit 1
}

if [ ! -x .venv/bin/python ]; then
    base=$(find_python) || exit 1
    "$base" -m venv .venv || exit 1
fi
PYTHON=.venv/bin/python

for requirements in "$@"; do
    mark=".venv/installed-$requirements"
    if cmp -s "$requirements" "$mark"; then continue; fi
    echo "installing $requirements (torch alone takes a few minutes and 6 GB the first time)"
    # --no-compile: Python compiles what it imports, a small part; all of it costs 40 s on two cores
    if [ "$requirements" = requirements-dashboard.txt ]; then
        # visdom's source package needs an older setuptools than pip's build isolation would fetch
        "$PYTHON" -m pip install --quiet --no-compile "setuptools<81" wheel || exit 1
        "$PYTHON" -m pip install --quiet --no-compile --no-build-isolation -r "$requirements" || exit 1
        # a failure is told by its own sentence, and only the dashboard's server, which tries again, cannot do without
        "$PYTHON" -m scripts.dashboard_assets || true
    else
        "$PYTHON" -m pip install --quiet --no-compile -r "$requirements" || exit 1
    fi
    cp "$requirements" "$mark"
done
