#!/usr/bin/env bash
# From a fresh clone to a report: set-up, simulated data, SGP + LSC + PTA training, test. About a quarter of an hour on two
# CPU cores, less with a GPU. Needs nothing but Python >= 3.11. Results: demo_output/ (or the folder given as argument).
set -euo pipefail
started=$SECONDS
source "$(dirname "$0")/setup.sh" requirements.txt

OUT=${1:-demo_output}
DATA=$OUT/data
# slices of 96 px and small networks keep a training step below a second
SIMULATED=(--simulate --matrix 96 --n_train 24 --n_val 2 --n_test 12)
COMMON=(--dataroot "$DATA" --checkpoints_dir "$OUT/checkpoints" --overwrite --load_size 96 --level_crop 0)
SGP=(--sgp_input 48 --sgp_patch 12 --sgp_width 128 --sgp_depth 3 --sgp_embedding 128 --sgp_batch_size 32 --sgp_lr 5e-4)
LSC=(--lsc_features 8 --lsc_lr 3e-3 --lsc_steps 300)
HYBRID=(--hybrid_width 128 --hybrid_depth 2 --hybrid_heads 4 --hybrid_mlp 256 --hybrid_features 8 --ndf 16)

echo "== 1/4 simulated data: 0.064 T and 3 T T2w, truth known (after $((SECONDS - started)) s)"
"$PYTHON" preprocessing_images.py "${SIMULATED[@]}" --out "$DATA" --overwrite

echo "== 2/4 evaluation encoder, never part of a loss (after $((SECONDS - started)) s)"
"$PYTHON" train.py "${COMMON[@]}" --name eval_encoder --model sgp --seed 7 "${SGP[@]}" --sgp_steps 150

echo "== 3/4 PTA: SGP, LSC, the adversarial epochs, refinement (after $((SECONDS - started)) s)"
"$PYTHON" train.py "${COMMON[@]}" --name demo --model pta_hybrid "${SGP[@]}" --sgp_steps 1000 "${LSC[@]}" "${HYBRID[@]}" \
    --flip --batch_size 2 --n_epochs 1 --n_epochs_decay 1 --n_epochs_refine 4 --lr 6e-4 --lf_noise 0.1 --lf_bias 0.1

echo "== 4/4 test on subjects nobody has seen (after $((SECONDS - started)) s)"
"$PYTHON" test.py --dataroot "$DATA" --name demo --checkpoints_dir "$OUT/checkpoints" --results_dir "$OUT/results" \
    --eval_encoder "$OUT/checkpoints/eval_encoder"
"$PYTHON" -m scripts.demo_picture "$OUT/results/demo/test_latest" --out "$OUT/demo.png"

echo "done in $((SECONDS - started)) s"
echo "training report: $OUT/checkpoints/demo/web/index.html"
echo "results:         $OUT/results/demo/test_latest/index.html"
