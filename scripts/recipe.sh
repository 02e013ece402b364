# Sourced by the recipes: takes DATA and OUT from the arguments and leaves the further options in MORE, which may be empty
# (older versions of bash take an empty array for unset, hence ${MORE[@]+...}).
# Also $ROOT and $PYTHON, see find_python.sh. Relative folders are those of the caller.
# Usage: source scripts/recipe.sh "WHAT IT DOES" "$@"

if [ $# -lt 3 ] || [ "${2#-}" != "$2" ] || [ "${3#-}" != "$3" ]; then
    echo "$1" >&2
    echo "usage: bash $0 DATA OUT [further options]" >&2
    exit 2
fi
DATA=$2
OUT=$3
MORE=("${@:4}")
source "$(dirname "${BASH_SOURCE[0]}")/find_python.sh" torch requirements.txt
TRAIN=("$PYTHON" "$ROOT/train.py" --preset published --dataroot "$DATA" --checkpoints_dir "$OUT")
