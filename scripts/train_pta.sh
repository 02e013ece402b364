#!/usr/bin/env bash
# The method as published: SGP, LSC, then the generators, 224 px, batches of 16, 100 + 50 epochs. The run is OUT/pta.
# Meant for a GPU. Further options go to train.py and win over the published ones:
#   bash scripts/train_pta.sh DATA OUT --display_id 1 --batch_size 8
#   bash scripts/train_pta.sh DATA OUT --continue_train
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" "trains pta_hybrid with the published settings into OUT/pta" "$@"

"${TRAIN[@]}" --name pta --model pta_hybrid --netG hybrid --dataset_mode unaligned_mask ${MORE[@]+"${MORE[@]}"}
echo "next: bash scripts/test_pta.sh $DATA $OUT"
