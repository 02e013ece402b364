#!/usr/bin/env bash
# Training on one or several machines of a slurm cluster, that goes on by itself after preemption and at its time limit.
# Submit from the repository's folder, with train.py's own options:
#
#   sbatch scripts/slurm_train.sh --dataroot DATA --name test --checkpoints_dir OUT --batch_size 16
#
# What to edit: the lines below; or give such options before the script's name, sbatch --nodes=2 scripts/slurm_train.sh.
# DATA and OUT must lie on a file system that all machines share. scripts/slurm_run.sh, which does the work, lists what
# else can be set; docs/scale.md explains it.
#
#SBATCH --job-name=pta-train
#SBATCH --nodes=1                  # machines
#SBATCH --gpus-per-node=1          # GPUs of each, and processes: every GPU has one
#SBATCH --cpus-per-task=8          # of a machine, for all its processes together
#SBATCH --mem=64G                  # of a machine
#SBATCH --time=24:00:00            # the job is started again after it, until training has ended
#SBATCH --signal=USR1@300          # save so many seconds before the time is up; more than a step and a save take
#SBATCH --requeue                  # start the job again after preemption and when a machine fails
#SBATCH --open-mode=append         # and go on in the same log
#SBATCH --output=pta-train-%j.log
## add what your cluster wants: #SBATCH --partition=... --account=...

cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
exec bash scripts/slurm_run.sh train.py "$@"
