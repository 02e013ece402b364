#!/usr/bin/env bash
# The pretext networks by themselves, OUT/sgp and OUT/lsc, and then the generators that they guide, OUT/pta. Worth it
# where several runs share the pretext networks; for a single run scripts/train_pta.sh does the same in one.
# Further options go to all three trainings, --sgp_… and --lsc_… only to those that know them, and what comes after
# `--` only to the last:
#   bash scripts/pretrain_sgp_lsc.sh DATA OUT --sgp_steps 8000 -- --n_epochs 50 --n_epochs_decay 25
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" "trains SGP, LSC, and pta_hybrid with both into OUT/pta" "$@"

SGP=("${TRAIN[@]}" --name sgp --model sgp)
LSC=("${TRAIN[@]}" --name lsc --model lsc)
PTA=("${TRAIN[@]}" --name pta --model pta_hybrid --netG hybrid --sgp_weights "$OUT/sgp" --lsc_weights "$OUT/lsc")
knowing="sgp lsc pta" # the trainings that know the option whose words are being read
last=""
for word in ${MORE[@]+"${MORE[@]}"}; do
    case $word in
        --) last=pta && continue ;;
        --sgp_steps* | --sgp_lr* | --sgp_batch_size* | --sgp_views* | --sgp_soft_sigma*) knowing="sgp" ;;
        --lsc_steps* | --lsc_lr* | --lsc_batch_size*) knowing="lsc" ;;
        --sgp_*) knowing="sgp pta" ;;
        --lsc_* | --no_lsc_* | --rotate_ratio* | --mask_ratio*) knowing="lsc pta" ;;
        --*) knowing="sgp lsc pta" ;;
    esac
    for training in ${last:-$knowing}; do
        case $training in
            sgp) SGP+=("$word") ;;
            lsc) LSC+=("$word") ;;
            pta) PTA+=("$word") ;;
        esac
    done
done

"${SGP[@]}"
"${LSC[@]}"
"${PTA[@]}"
echo "next: bash scripts/test_pta.sh $DATA $OUT"
