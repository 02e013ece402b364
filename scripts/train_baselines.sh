#!/usr/bin/env bash
# What to compare with, at the same size, batch and length as scripts/train_pta.sh: CycleGAN with its own generator and
# with the method's, then, with the method's generator, CUT, the model without an adversary, the Schroedinger bridge,
# and where DATA/trainA_truth is there (simulated data), the upper bound that learns from pairs. The runs are
# OUT/MODEL_GENERATOR. `unet_128` and `unet_256` are left out: they cannot take 224 px.
# Further options go to train.py for each of them, so they must be ones that all of these models have:
#   bash scripts/train_baselines.sh DATA OUT --seed 1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" "trains the models to compare with into OUT/MODEL_GENERATOR" "$@"

train() { # MODEL GENERATOR [options]
    "${TRAIN[@]}" --name "$1_$2" --model "$1" --netG "$2" "${@:3}" ${MORE[@]+"${MORE[@]}"}
    echo "next: bash scripts/test_pta.sh $DATA $OUT --name $1_$2"
}

train cycle_gan resnet_9blocks
train cycle_gan hybrid
train cut hybrid
train degrade hybrid
train unsb hybrid
if [ -d "$DATA/trainA_truth" ]; then
    train supervised hybrid --dataset_mode aligned
fi
