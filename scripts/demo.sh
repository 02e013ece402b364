#!/usr/bin/env bash
# From a fresh clone to a report: set-up, simulated data, SGP + LSC + PTA training, test. About a quarter of an hour on two
# CPU cores, less with a GPU. Needs nothing but Python >= 3.11. Results: demo_output/ (or the folder given as argument).
set -euo pipefail
started=$SECONDS
source "$(dirname "$0")/setup.sh" requirements.txt

OUT=${1:-demo_output}
DATA=$OUT/data
# options/presets.py has the rest: slices of 128 px and small networks keep a training step at a second
SIMULATED=(--simulate --matrix 128 --n_train 24 --n_val 2 --n_test 12)
TRAIN=(train.py --preset demo --dataroot "$DATA" --checkpoints_dir "$OUT/checkpoints" --overwrite)

echo "== 1/4 simulated data: 0.064 T and 3 T T2w, truth known (after $((SECONDS - started)) s)"
"$PYTHON" preprocessing_images.py "${SIMULATED[@]}" --out "$DATA" --overwrite

echo "== 2/4 evaluation encoder, never part of a loss (after $((SECONDS - started)) s)"
"$PYTHON" "${TRAIN[@]}" --name eval_encoder --model sgp --seed 7 --sgp_steps 150

echo "== 3/4 PTA: SGP, LSC, the adversarial epochs, refinement (after $((SECONDS - started)) s)"
"$PYTHON" "${TRAIN[@]}" --name demo --model pta_hybrid

echo "== 4/4 test on subjects nobody has seen (after $((SECONDS - started)) s)"
"$PYTHON" test.py --dataroot "$DATA" --name demo --checkpoints_dir "$OUT/checkpoints" --results_dir "$OUT/results" \
    --overwrite --average_mirrored --eval_encoder "$OUT/checkpoints/eval_encoder"
"$PYTHON" -m scripts.demo_picture "$OUT/results/demo/test_latest" --out "$OUT/demo.png"

echo "done in $((SECONDS - started)) s"
echo "training report: $OUT/checkpoints/demo/web/index.html"
echo "results:         $OUT/results/demo/test_latest/index.html"
