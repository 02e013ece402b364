#!/usr/bin/env bash
# Tests a run of the other recipes, OUT/pta unless --name says otherwise, on DATA's test slices. Results: OUT/results.
# Further options go to test.py:
#   bash scripts/test_pta.sh DATA OUT --name cycle_gan_resnet_9blocks
#   bash scripts/test_pta.sh DATA OUT --inception_weights FILE
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" "tests the run OUT/pta on the test slices of DATA" "$@"

"$PYTHON" "$ROOT/test.py" --dataroot "$DATA" --name pta --checkpoints_dir "$OUT" --results_dir "$OUT/results" ${MORE[@]+"${MORE[@]}"}
