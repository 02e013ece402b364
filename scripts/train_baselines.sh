#!/usr/bin/env bash
# What to compare with: CycleGAN, with its own generator and with the method's, at the same size, batch and length as
# scripts/train_pta.sh. The runs are OUT/cycle_gan_GENERATOR. U-Nets are left out: they cannot take 224 px.
# Further options go to train.py for each of them:
#   bash scripts/train_baselines.sh DATA OUT --seed 1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" "trains CycleGAN with two generators into OUT/cycle_gan_GENERATOR" "$@"

for generator in resnet_9blocks hybrid; do
    "${TRAIN[@]}" --name "cycle_gan_$generator" --model cycle_gan --netG "$generator" ${MORE[@]+"${MORE[@]}"}
    echo "next: bash scripts/test_pta.sh $DATA $OUT --name cycle_gan_$generator"
done
