#!/usr/bin/env bash
# From a fresh clone to a report: set-up, simulated data, SGP + LSC + PTA training, test. About a quarter of an hour on two
# CPU cores, less with a GPU. Needs nothing but Python >= 3.11. Results: demo_output/ (or the folder given as argument).
set -euo pipefail
started=$SECONDS
source "$(dirname "$0")/setup.sh" requirements.txt

OUT=${1:-demo_output}
DATA=$OUT/data
# slices of 112 px and a small hybrid generator keep a training step below a second
SGP=(--sgp_input 64 --sgp_patch 8 --sgp_width 128 --sgp_depth 4 --sgp_embedding 128 --sgp_steps 500)

echo "== 1/4 simulated data: 0.064 T and 3 T T2w, truth known (after $((SECONDS - started)) s)"
"$PYTHON" preprocessing_images.py --simulate --out "$DATA" --overwrite --matrix 112 --n_train 16 --n_val 2 --n_test 12

echo "== 2/4 evaluation encoder, never part of a loss (after $((SECONDS - started)) s)"
"$PYTHON" train.py --dataroot "$DATA" --name eval_encoder --model sgp --checkpoints_dir "$OUT/checkpoints" --overwrite \
    --load_size 112 --batch_size 16 --seed 7 "${SGP[@]}"

echo "== 3/4 PTA: SGP, then LSC, then the adversarial epochs (after $((SECONDS - started)) s)"
"$PYTHON" train.py --dataroot "$DATA" --name demo --model pta_hybrid --checkpoints_dir "$OUT/checkpoints" --overwrite \
    --load_size 112 --batch_size 2 --n_epochs 4 --n_epochs_decay 2 --lr 4e-4 "${SGP[@]}" --lsc_steps 500 \
    --hybrid_width 128 --hybrid_depth 2 --hybrid_heads 4 --hybrid_mlp 256 --hybrid_patch 8 --hybrid_features 8 --ndf 16

echo "== 4/4 test on subjects nobody has seen (after $((SECONDS - started)) s)"
"$PYTHON" test.py --dataroot "$DATA" --name demo --checkpoints_dir "$OUT/checkpoints" --results_dir "$OUT/results" \
    --eval_encoder "$OUT/checkpoints/eval_encoder"

echo "done in $((SECONDS - started)) s"
echo "training report: $OUT/checkpoints/demo/web/index.html"
echo "results:         $OUT/results/demo/test_latest/index.html"
