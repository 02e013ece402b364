#!/usr/bin/env bash
# One of the programs on all machines of a slurm job. Submit from the repository's folder:
#
#   sbatch --nodes=4 scripts/slurm_run.sh preprocessing_images.py --input_A LOW --input_B HIGH --out DATA
#   sbatch --gpus-per-node=4 scripts/slurm_run.sh test.py --dataroot DATA --name test --checkpoints_dir OUT
#
# For training take scripts/slurm_train.sh, which ends here too. All folders must lie on a file system that the machines
# share. What can be set in the environment:
#
#   PYTHON                  the interpreter; default .venv/bin/python if there is one, else python3
#   PROCESSES_PER_NODE      default: one a GPU, and one on a machine without; preprocessing, which has --workers of its
#                           own, needs no more
#   RENDEZVOUS_PORT         where the processes meet, on the job's first machine; default: from the job's number
#   GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME    the network interface (ib0, eth0, ...) where a machine has several
#
# Edit, or give before the script's name:
#SBATCH --job-name=pta-run
#SBATCH --nodes=1                  # machines
#SBATCH --cpus-per-task=8          # of a machine, for all its processes together
#SBATCH --mem=32G                  # of a machine
#SBATCH --time=08:00:00
#SBATCH --no-requeue               # a half-written data folder would stand in the second run's way
#SBATCH --open-mode=append
#SBATCH --output=pta-run-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

program=${1:-}
if [ -z "$program" ] || [ ! -f "$program" ]; then
    echo "slurm_run.sh: '$program' is no program here; submit from the repository's folder, and name train.py," \
        "test.py or preprocessing_images.py before its options" >&2
    exit 2
fi
shift
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
nodes=${#machines[@]}
processes=${PROCESSES_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
port=${RENDEZVOUS_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
attempt=${SLURM_RESTART_COUNT:-0}
echo "$(date '+%F %T') $program on $nodes x $processes processes, first machine ${machines[0]}, restart $attempt"

# one torchrun a machine; the shell around it outlives signals, and ends with the status that requeueing goes by
torchrun=(
    "$PYTHON" -m torch.distributed.run --nnodes="$nodes" --nproc_per_node="$processes" --rdzv_backend=c10d
    --rdzv_id="$SLURM_JOB_ID.$attempt" --rdzv_endpoint="${machines[0]}:$port"
)
trap : TERM # slurm signals the processes itself; this script waits for what they make of it
status=0
srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    bash scripts/slurm_node.sh "${torchrun[@]}" "$program" "$@" || status=$?

if [ "$status" -eq $((128 + $(kill -l USR1))) ]; then # stopped by the early warning, the state is saved
    echo "$(date '+%F %T') not done when the time was nearly up; the job is started again"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
